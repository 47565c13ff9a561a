package onnx

import (
	"errors"
	"fmt"
)

// JPEG is decoded here and not by Go's library because results must be equal,
// to the bit, to libjpeg's, with which models were trained: its inverse
// transform, its interpolation of colours, its colour conversion. Sequential
// and progressive Huffman files of 8 bits are read.

// jpegPart is one component of a picture.
type jpegPart struct {
	id, h, v     int // sampling factors
	quant        int
	cols, rows   int     // blocks, whole units of the interleaved layout
	wide, high   int     // blocks that hold picture
	coef         []int32 // 64 per block, in natural order
	dc, ac       int     // tables of the scan
	last         int32   // DC of the block before
	plane        []byte  // decoded samples, cols·8 a row
	width, lines int     // samples that hold picture
}

// jpegFile is a file being decoded; its first error stays.
type jpegFile struct {
	data        []byte
	at          int
	err         error
	w, h        int
	progressive bool
	parts       []*jpegPart
	quant       [4][64]int32 // in natural order
	huff        [8]*huffman  // DC tables, then AC tables
	restart     int
	adobe       int // colour transform, -1: not said
	jfif        bool
	bits        uint32 // bit buffer
	nbits       int
	eobRun      int
}

// zigzag is the natural position of the k-th coefficient in a file.
var zigzag = [64]int{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
}

func decodeJPEG(data []byte) (*pixels, error) {
	f := &jpegFile{data: data, at: 2, adobe: -1}
	for f.err == nil && f.segment() {
	}
	if f.err == nil && f.parts == nil {
		f.err = errors.New("the file holds no picture")
	}
	if f.err != nil {
		return nil, f.err
	}
	for _, p := range f.parts {
		p.transform(&f.quant[p.quant])
	}
	return f.colours()
}

func (f *jpegFile) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// segment reads one marker and what belongs to it; false at the end.
func (f *jpegFile) segment() bool {
	for f.at < len(f.data) && f.data[f.at] != 0xff {
		f.at++
	}
	for f.at < len(f.data) && f.data[f.at] == 0xff {
		f.at++
	}
	if f.at >= len(f.data) {
		return false
	}
	m := f.data[f.at]
	f.at++
	switch {
	case m == 0xd9:
		return false
	case m == 0 || m == 1 || m >= 0xd0 && m <= 0xd8:
		return true
	}
	if f.at+2 > len(f.data) {
		f.fail("the file ends early")
		return false
	}
	n := int(f.data[f.at])<<8 | int(f.data[f.at+1])
	if n < 2 || f.at+n > len(f.data) {
		f.fail("segment %#x is cut off", m)
		return false
	}
	b := f.data[f.at+2 : f.at+n]
	f.at += n
	switch {
	case m == 0xc4:
		f.tables(b)
	case m == 0xdb:
		f.quantizers(b)
	case m == 0xdd && len(b) >= 2:
		f.restart = int(b[0])<<8 | int(b[1])
	case m == 0xe0:
		f.jfif = f.jfif || len(b) >= 5 && string(b[:5]) == "JFIF\x00"
	case m == 0xee:
		if len(b) >= 12 && string(b[:5]) == "Adobe" {
			f.adobe = int(b[11])
		}
	case m >= 0xc0 && m <= 0xc2:
		f.progressive = m == 0xc2
		f.frame(b)
	case m >= 0xc3 && m <= 0xcf && m != 0xc8 && m != 0xcc:
		f.err = errPicture // lossless, hierarchical or arithmetic
	case m == 0xda:
		f.scan(b)
	}
	return true
}

func (f *jpegFile) quantizers(b []byte) {
	for len(b) > 0 && f.err == nil {
		wide, id := int(b[0]>>4), b[0]&15
		b = b[1:]
		if wide > 1 || id > 3 || len(b) < 64*(wide+1) {
			f.fail("a quantization table is broken")
			return
		}
		for k, z := range zigzag {
			v := int32(b[k*(wide+1)])
			if wide == 1 {
				v = v<<8 | int32(b[2*k+1])
			}
			f.quant[id][z] = v
		}
		b = b[64*(wide+1):]
	}
}

func (f *jpegFile) frame(b []byte) {
	if f.parts != nil || len(b) < 6 || len(b) < 6+3*int(b[5]) {
		f.fail("the frame header is broken")
		return
	}
	f.h, f.w = int(b[1])<<8|int(b[2]), int(b[3])<<8|int(b[4])
	if b[0] != 8 || b[5] != 1 && b[5] != 3 || f.h == 0 {
		f.err = errPicture
		return
	}
	if _, err := newPixels(f.w, f.h); err != nil {
		f.err = err
		return
	}
	var hmax, vmax int
	for i := range int(b[5]) {
		c := b[6+3*i:]
		p := &jpegPart{id: int(c[0]), h: int(c[1] >> 4), v: int(c[1] & 15), quant: int(c[2])}
		if p.h < 1 || p.v < 1 || p.h > 4 || p.v > 4 || p.quant > 3 {
			f.fail("component %d is broken", p.id)
			return
		}
		if b[5] == 1 {
			p.h, p.v = 1, 1 // factors mean nothing without another component
		}
		hmax, vmax = max(hmax, p.h), max(vmax, p.v)
		f.parts = append(f.parts, p)
	}
	up := func(a, b int) int { return (a + b - 1) / b }
	for _, p := range f.parts {
		p.width, p.lines = up(f.w*p.h, hmax), up(f.h*p.v, vmax)
		p.wide, p.high = up(p.width, 8), up(p.lines, 8)
		p.cols, p.rows = up(f.w, 8*hmax)*p.h, up(f.h, 8*vmax)*p.v
		p.coef = make([]int32, 64*p.cols*p.rows)
	}
}

// transform undoes quantization and the cosine transform of all blocks.
func (p *jpegPart) transform(q *[64]int32) {
	p.plane = make([]byte, 64*p.cols*p.rows)
	stride := 8 * p.cols
	for by := range p.rows {
		for bx := range p.cols {
			block := p.coef[64*(by*p.cols+bx):][:64]
			for i := range block {
				block[i] *= q[i]
			}
			inverseDCT(block)
			for y := range 8 {
				for x := range 8 {
					p.plane[(8*by+y)*stride+8*bx+x] = byte(block[8*y+x])
				}
			}
		}
	}
	p.coef = nil
}

// at is a sample.
func (p *jpegPart) at(x, y int) int { return int(p.plane[y*8*p.cols+x]) }

// colours brings all components to full resolution and makes them red, green
// and blue.
func (f *jpegFile) colours() (*pixels, error) {
	out, err := newPixels(f.w, f.h)
	if err != nil {
		return nil, err
	}
	rgb := false
	if len(f.parts) == 3 {
		named := f.parts[0].id == 'R' && f.parts[1].id == 'G' && f.parts[2].id == 'B'
		rgb = f.adobe == 0 || f.adobe < 0 && !f.jfif && named
	}
	for _, p := range f.parts {
		if kx, ky := f.parts[0].h/p.h, f.parts[0].v/p.v; kx*p.h != f.parts[0].h || ky*p.v != f.parts[0].v || kx > 2 || ky > 2 {
			return nil, errPicture
		}
	}
	for y := range f.h {
		for x := range f.w {
			var v [3]int
			for k, p := range f.parts {
				v[k] = p.sample(x, y, f.parts[0].h/p.h, f.parts[0].v/p.v)
			}
			switch {
			case len(f.parts) == 1:
				out.set(x, y, byte(v[0]), byte(v[0]), byte(v[0]))
			case rgb:
				out.set(x, y, byte(v[0]), byte(v[1]), byte(v[2]))
			default:
				r, g, b := jfifColour(v[0], v[1], v[2])
				out.set(x, y, r, g, b)
			}
		}
	}
	return out, nil
}

// sample is the component at a pixel, kx by ky of which it has one sample for:
// by triangular interpolation, libjpeg's "fancy upsampling".
func (p *jpegPart) sample(x, y, kx, ky int) int {
	switch {
	case kx == 1 && ky == 1:
		return p.at(x, y)
	case kx == 1:
		near, far := p.rows2(y)
		return (3*p.at(x, near) + p.at(x, far) + 1 + y%2) >> 2
	case p.width <= 2: // libjpeg copies where there is next to nothing to interpolate
		return p.at(x/kx, y/ky)
	case ky == 1:
		return fancy(x, p.width, 2, func(cx int) int { return p.at(cx, y) })
	}
	near, far := p.rows2(y)
	return fancy(x, p.width, 4, func(cx int) int { return 3*p.at(cx, near) + p.at(cx, far) })
}

// rows2 are the two rows of half the resolution that line y lies between.
func (p *jpegPart) rows2(y int) (near, far int) {
	if y%2 == 0 {
		return y / 2, max(y/2-1, 0)
	}
	return y / 2, min(y/2+1, p.lines-1)
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
