package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/png"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// imageOps decode picture files; they run in the evaluator only.
var imageOps = []Op{
	{Name: "ImageDecoder", Since: []int{20}, Expand: expandImageDecoder},
}

// pixels is a decoded picture: rows of red, green, blue.
type pixels struct {
	w, h int
	rgb  []byte
}

// maxPixels bounds what a few bytes of header may ask for.
const maxPixels = 1 << 28

// pictureFormats are told apart by how files begin; a nil decoder is refused by
// name.
var pictureFormats = []struct {
	name, magic string
	decode      func([]byte) (*pixels, error)
}{
	{"jpeg", "\xff\xd8\xff", decodeJPEG},
	{"png", "\x89PNG\r\n\x1a\n", decodeWith(png.Decode, png.DecodeConfig)},
	{"bmp", "BM", decodeWith(bmp.Decode, bmp.DecodeConfig)},
	{"tiff", "II*\x00", decodeWith(tiff.Decode, tiff.DecodeConfig)},
	{"tiff", "MM\x00*", decodeWith(tiff.Decode, tiff.DecodeConfig)},
	{"webp", "RIFF????WEBP", decodeWebP},
	{"gif", "GIF8", decodeWith(gif.Decode, gif.DecodeConfig)},
	{"jpeg2000", "\x00\x00\x00\x0cjP  ", nil},
	{"jpeg2000", "\xff\x4f\xff\x51", nil},
	{"pnm", "P1", nil},
	{"pnm", "P2", decodePNM},
	{"pnm", "P3", decodePNM},
	{"pnm", "P4", nil},
	{"pnm", "P5", decodePNM},
	{"pnm", "P6", decodePNM},
}

func begins(data []byte, magic string) bool {
	if len(data) < len(magic) {
		return false
	}
	for i := range magic {
		if magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

var errPicture = errors.New("picture of a kind that lathe does not decode")

func expandImageDecoder(c *Ctx) {
	t := c.Tensor(0, "the encoded picture")
	if t.DType != tensor.U8 || len(t.Shape) != 1 {
		c.Fail("input %s: a file is a vector of bytes", t)
	}
	format := c.OneOf("pixel_format", c.N.Str("pixel_format", "RGB"), "RGB", "BGR", "Grayscale")
	for _, f := range pictureFormats {
		if !begins(t.Bytes(), f.magic) {
			continue
		}
		if f.decode == nil {
			c.Unsupported("a picture in %s format", f.name)
		}
		p, err := f.decode(t.Bytes())
		switch {
		case errors.Is(err, errPicture):
			c.Unsupported("%s: %v", f.name, err)
		case err != nil:
			c.Fail("%s: %v", f.name, err)
		}
		c.Out(0, c.B.Const(p.tensor(format)))
		return
	}
	c.Unsupported("a picture in an unknown format")
}

// tensor lays the picture out as height, width, channels.
func (p *pixels) tensor(format string) *tensor.Tensor {
	switch format {
	case "Grayscale": // ITU-R 601 in 16 bits, as Pillow converts
		t := tensor.New(tensor.U8, p.h, p.w, 1)
		for i := range p.w * p.h {
			r, g, b := uint32(p.rgb[3*i]), uint32(p.rgb[3*i+1]), uint32(p.rgb[3*i+2])
			t.Bytes()[i] = byte((r*19595 + g*38470 + b*7471 + 1<<15) >> 16)
		}
		return t
	case "BGR":
		t := tensor.New(tensor.U8, p.h, p.w, 3)
		for i := range p.w * p.h {
			t.Bytes()[3*i], t.Bytes()[3*i+1], t.Bytes()[3*i+2] = p.rgb[3*i+2], p.rgb[3*i+1], p.rgb[3*i]
		}
		return t
	}
	t := tensor.New(tensor.U8, p.h, p.w, 3)
	copy(t.Bytes(), p.rgb)
	return t
}

func newPixels(w, h int) (*pixels, error) {
	if w < 1 || h < 1 || w > maxPixels/h {
		return nil, fmt.Errorf("a picture of %d × %d pixels", w, h)
	}
	return &pixels{w: w, h: h, rgb: make([]byte, 3*w*h)}, nil
}

func (p *pixels) set(x, y int, r, g, b byte) {
	i := 3 * (y*p.w + x)
	p.rgb[i], p.rgb[i+1], p.rgb[i+2] = r, g, b
}

// decodeWith wraps a decoder of Go's libraries; transparency is dropped.
func decodeWith[R any](decode func(r R) (image.Image, error), config func(r R) (image.Config, error)) func([]byte) (*pixels, error) {
	return func(data []byte) (*pixels, error) {
		read := func() R { return any(bytes.NewReader(data)).(R) }
		cfg, err := config(read())
		if err != nil {
			return nil, err
		}
		p, err := newPixels(cfg.Width, cfg.Height)
		if err != nil {
			return nil, err
		}
		switch cfg.ColorModel {
		case color.Gray16Model, color.RGBA64Model, color.NRGBA64Model, color.CMYKModel:
			return nil, errPicture
		}
		img, err := decode(read())
		if err != nil {
			return nil, err
		}
		at := img.Bounds()
		for y := range p.h {
			for x := range p.w {
				n := color.NRGBAModel.Convert(img.At(at.Min.X+x, at.Min.Y+y)).(color.NRGBA)
				p.set(x, y, n.R, n.G, n.B)
			}
		}
		return p, nil
	}
}

// decodeWebP converts the colours of lossy files as libwebp does: x/image
// leaves them in video levels and at half the resolution.
func decodeWebP(data []byte) (*pixels, error) {
	cfg, err := webp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	p, err := newPixels(cfg.Width, cfg.Height)
	if err != nil {
		return nil, err
	}
	img, err := webp.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	switch m := img.(type) {
	case *image.YCbCr:
		p.fromVideo(m)
	case *image.NYCbCrA:
		p.fromVideo(&m.YCbCr)
	case *image.NRGBA:
		for y := range p.h {
			for x := range p.w {
				q := m.NRGBAAt(x, y)
				p.set(x, y, q.R, q.G, q.B)
			}
		}
	default:
		return nil, errPicture
	}
	return p, nil
}

// fromVideo interpolates the colours of each pixel from the four nearest
// samples, weighted 9, 3, 3, 1, in the two roundings of libwebp.
func (p *pixels) fromVideo(m *image.YCbCr) {
	cw, ch := (p.w+1)/2, (p.h+1)/2
	for y := range p.h {
		near, far := y/2, y/2+1
		if y%2 == 0 {
			far = y/2 - 1
		}
		if far < 0 || far >= ch {
			far = near
		}
		for x := range p.w {
			side := x/2 + 1
			if x%2 == 0 {
				side = x/2 - 1
			}
			mix := func(plane []byte) int {
				at := func(cx, cy int) int { return int(plane[cy*m.CStride+cx]) }
				a, c := at(x/2, near), at(x/2, far)
				if side < 0 || side >= cw {
					return (3*a + c + 2) >> 2
				}
				b, d := at(side, near), at(side, far)
				diagonal := (a + b + c + d + 8 + 2*(b+c)) >> 3
				return (diagonal + a) >> 1
			}
			v := int(m.Y[y*m.YStride+x])
			r, g, b := videoColour(v, mix(m.Cb), mix(m.Cr))
			p.set(x, y, r, g, b)
		}
	}
}

// videoColour is BT.601 from 16…235 levels, in libwebp's fixed point.
func videoColour(y, u, v int) (r, g, b byte) {
	clip := func(x int) byte { return byte(min(max(x>>6, 0), 255)) }
	base := y * 19077 >> 8
	return clip(base + v*26149>>8 - 14234),
		clip(base - u*6419>>8 - v*13320>>8 + 8708),
		clip(base + u*33050>>8 - 17685)
}

// decodePNM reads grey and colour maps, as text (P2, P3) or bytes (P5, P6).
func decodePNM(data []byte) (*pixels, error) {
	kind := data[1]
	s := pnm{data: data[2:]}
	w, h, top := s.number(), s.number(), s.number()
	if s.short || top < 1 {
		return nil, fmt.Errorf("the header is broken")
	}
	if top > 255 {
		return nil, errPicture
	}
	p, err := newPixels(w, h)
	if err != nil {
		return nil, err
	}
	binary := kind >= '5'
	if binary {
		s.at++ // one white space ends the header
	}
	sample := func() byte {
		v := 0
		if binary {
			v = s.byte()
		} else {
			v = s.number()
		}
		return byte((min(v, top)*255 + top/2) / top)
	}
	for i := 0; i < len(p.rgb); i += 3 {
		p.rgb[i] = sample()
		if kind == '3' || kind == '6' {
			p.rgb[i+1], p.rgb[i+2] = sample(), sample()
		} else {
			p.rgb[i+1], p.rgb[i+2] = p.rgb[i], p.rgb[i]
		}
	}
	if s.short {
		return nil, fmt.Errorf("the file ends early")
	}
	return p, nil
}

// pnm is a reader of the numbers of a portable map.
type pnm struct {
	data  []byte
	at    int
	short bool // more was asked for than there is
}

func (s *pnm) byte() int {
	if s.at >= len(s.data) {
		s.short = true
		return 0
	}
	s.at++
	return int(s.data[s.at-1])
}

// number skips white space and comments and reads decimal digits.
func (s *pnm) number() int {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '#':
			for s.at < len(s.data) && s.data[s.at] != '\n' {
				s.at++
			}
		case c == ' ' || c >= '\t' && c <= '\r':
			s.at++
		default:
			v, digits := 0, 0
			for s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' && v < maxPixels {
				v = v*10 + int(s.data[s.at]-'0')
				s.at++
				digits++
			}
			s.short = s.short || digits == 0
			return v
		}
	}
	s.short = true
	return 0
}
