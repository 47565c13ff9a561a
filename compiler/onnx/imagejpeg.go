package onnx

import (
	"bytes"
	"image"
	"image/jpeg"
)

// decodeJPEG converts colours as libjpeg does: Go's library leaves them at the
// resolution of the file.
func decodeJPEG(data []byte) (*pixels, error) {
	cfg, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	p, err := newPixels(cfg.Width, cfg.Height)
	if err != nil {
		return nil, err
	}
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	switch m := img.(type) {
	case *image.Gray:
		for y := range p.h {
			for x := range p.w {
				v := m.Pix[y*m.Stride+x]
				p.set(x, y, v, v, v)
			}
		}
		return p, nil
	case *image.YCbCr:
		return p, p.fromJFIF(m)
	}
	return nil, errPicture
}

// fromJFIF brings the colours to full resolution by triangular interpolation,
// with the alternating roundings of libjpeg's "fancy upsampling".
func (p *pixels) fromJFIF(m *image.YCbCr) error {
	var hx, vy int
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio444:
		hx, vy = 1, 1
	case image.YCbCrSubsampleRatio422:
		hx, vy = 2, 1
	case image.YCbCrSubsampleRatio420:
		hx, vy = 2, 2
	default:
		return errPicture
	}
	cw, ch := (p.w+hx-1)/hx, (p.h+vy-1)/vy
	for y := range p.h {
		for x := range p.w {
			var c [2]int
			for k, plane := range [][]byte{m.Cb, m.Cr} {
				at := func(cx, cy int) int { return int(plane[cy*m.CStride+cx]) }
				switch {
				case hx == 1:
					c[k] = at(x, y)
				case vy == 1:
					c[k] = fancy(x, cw, 2, func(cx int) int { return at(cx, y) })
				default:
					near, far := y/2, min(y/2+1, ch-1)
					if y%2 == 0 {
						far = max(y/2-1, 0)
					}
					c[k] = fancy(x, cw, 4, func(cx int) int { return 3*at(cx, near) + at(cx, far) })
				}
			}
			r, g, b := jfifColour(int(m.Y[y*m.YStride+x]), c[0], c[1])
			p.set(x, y, r, g, b)
		}
	}
	return nil
}

// fancy interpolates column x between samples at half the resolution; the sum
// of weights is 1<<shift.
func fancy(x, samples, shift int, at func(int) int) int {
	here := at(x / 2)
	round := 1 << (shift - 1)
	side := x/2 + 1
	if x%2 == 0 {
		side = x/2 - 1
	}
	// Even columns round one way and odd ones the other, so as not to drift.
	if shift == 2 && x%2 == 0 || shift == 4 && x%2 == 1 {
		round--
	}
	if side < 0 || side >= samples {
		return (4*here + round) >> shift
	}
	return (3*here + at(side) + round) >> shift
}

// jfifColour is full range BT.601 in 16 bits, as in libjpeg.
func jfifColour(y, cb, cr int) (r, g, b byte) {
	clip := func(v int) byte { return byte(min(max(v, 0), 255)) }
	cb, cr = cb-128, cr-128
	const half = 1 << 15
	return clip(y + (91881*cr+half)>>16),
		clip(y + (-22554*cb-46802*cr+half)>>16),
		clip(y + (116130*cb+half)>>16)
}
