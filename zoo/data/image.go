package data

import (
	"bytes"
	"fmt"
	"image"
	_ "image/gif"  // decoders of the image package
	_ "image/jpeg" // register themselves
	_ "image/png"
	"math"

	_ "golang.org/x/image/bmp"
	"golang.org/x/image/draw"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxPixels bounds a decoded image: a small file may claim a huge one.
const maxPixels = 1 << 28

// pixels is an image on its way to a tensor: rows of interleaved channels.
type pixels struct {
	w, h, c int
	v       []float32
}

// ReadImage decodes a picture and applies the recipe; nil means pixels 0 to 255
// as float NCHW. Transparent pixels are black; EXIF rotation is not applied.
func ReadImage(b []byte, p *Preprocess) (*tensor.Tensor, error) {
	cfg, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxPixels/cfg.Height {
		return nil, fmt.Errorf("a picture of %dx%d pixels is too large", cfg.Width, cfg.Height)
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if p == nil {
		p = &Preprocess{Layout: "nchw", DType: tensor.F32}
	}
	return p.apply(img)
}

// apply runs the steps: while only sizes change the picture stays 8 bits per
// channel, as the usual Python pipelines have it; numbers begin after that.
func (p *Preprocess) apply(img image.Image) (*tensor.Tensor, error) {
	rgba := toRGBA(img)
	i := 0
	for ; i < len(p.steps) && isGeometry(p.steps[i].name); i++ {
		var err error
		if rgba, err = p.geometry(rgba, p.steps[i]); err != nil {
			return nil, err
		}
	}
	px := fromRGBA(rgba)
	for ; i < len(p.steps); i++ {
		s := p.steps[i]
		if isGeometry(s.name) {
			return nil, fmt.Errorf("step %s must come before gray, bgr, scale, mean and std", s.name)
		}
		if err := px.numeric(s); err != nil {
			return nil, err
		}
	}
	return px.tensor(p.Layout, p.DType)
}

func isGeometry(name string) bool { return name == "resize" || name == "crop" || name == "fit" }

func toRGBA(img image.Image) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(out, out.Bounds(), img, b.Min, draw.Src)
	return out
}

func (p *Preprocess) geometry(src *image.RGBA, s step) (*image.RGBA, error) {
	w, h := src.Bounds().Dx(), src.Bounds().Dy()
	tw, th := int(s.args[0]), int(s.args[len(s.args)-1])
	switch s.name {
	case "crop":
		if tw > w || th > h {
			return nil, fmt.Errorf("cannot crop %dx%d out of %dx%d pixels", tw, th, w, h)
		}
		// torchvision's CenterCrop rounds half to even.
		x, y := int(math.RoundToEven(float64(w-tw)/2)), int(math.RoundToEven(float64(h-th)/2))
		out := image.NewRGBA(image.Rect(0, 0, tw, th))
		draw.Draw(out, out.Bounds(), src, image.Pt(x, y), draw.Src)
		return out, nil
	case "fit":
		side := max(w, h)
		out := image.NewRGBA(image.Rect(0, 0, tw, tw))
		p.scaler().Scale(out, image.Rect(0, 0, max(1, w*tw/side), max(1, h*tw/side)), src, src.Bounds(), draw.Src, nil)
		return out, nil
	}
	if len(s.args) == 1 {
		if w < h {
			th = h * tw / w
		} else {
			tw = w * th / h
		}
	}
	if tw > maxPixels/max(th, 1) {
		return nil, fmt.Errorf("a picture of %dx%d pixels is too large", tw, th)
	}
	out := image.NewRGBA(image.Rect(0, 0, tw, th))
	p.scaler().Scale(out, out.Bounds(), src, src.Bounds(), draw.Src, nil)
	return out, nil
}

func (p *Preprocess) scaler() draw.Scaler {
	switch p.filter {
	case "nearest":
		return draw.NearestNeighbor
	case "bicubic":
		return draw.CatmullRom
	}
	return draw.BiLinear
}

func fromRGBA(m *image.RGBA) *pixels {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	px := &pixels{w: w, h: h, c: 3, v: make([]float32, 0, 3*w*h)}
	for y := range h {
		row := m.Pix[y*m.Stride:]
		for x := range w {
			px.v = append(px.v, float32(row[4*x]), float32(row[4*x+1]), float32(row[4*x+2]))
		}
	}
	return px
}

func (px *pixels) numeric(s step) error {
	switch s.name {
	case "rgb":
		if px.c == 1 {
			px.widen()
		}
	case "bgr":
		if px.c == 1 {
			px.widen()
		}
		for i := 0; i < len(px.v); i += 3 {
			px.v[i], px.v[i+2] = px.v[i+2], px.v[i]
		}
	case "gray":
		px.gray()
	case "invert":
		for i, v := range px.v {
			px.v[i] = 255 - v
		}
	case "scale":
		for i, v := range px.v {
			px.v[i] = float32(float64(v) * s.args[0])
		}
	case "mean", "std":
		if len(s.args) != 1 && len(s.args) != px.c {
			return fmt.Errorf("%s has %d numbers, the picture %d channels", s.name, len(s.args), px.c)
		}
		for i, v := range px.v {
			a := s.args[i%px.c%len(s.args)]
			if s.name == "mean" {
				px.v[i] = float32(float64(v) - a)
			} else {
				px.v[i] = float32(float64(v) / a)
			}
		}
	}
	return nil
}

func (px *pixels) widen() {
	out := make([]float32, 0, 3*len(px.v))
	for _, v := range px.v {
		out = append(out, v, v, v)
	}
	px.c, px.v = 3, out
}

// gray is ITU-R 601 luma, rounded to whole steps as Pillow's mode L has it.
func (px *pixels) gray() {
	if px.c == 1 {
		return
	}
	out := make([]float32, 0, px.w*px.h)
	for i := 0; i < len(px.v); i += 3 {
		l := (float64(px.v[i])*19595 + float64(px.v[i+1])*38470 + float64(px.v[i+2])*7471 + 0x8000) / 65536
		out = append(out, float32(math.Floor(l)))
	}
	px.c, px.v = 1, out
}

func (px *pixels) tensor(layout string, d tensor.DType) (*tensor.Tensor, error) {
	var shape []int
	planar := false
	switch layout {
	case "nchw":
		shape, planar = []int{1, px.c, px.h, px.w}, true
	case "chw":
		shape, planar = []int{px.c, px.h, px.w}, true
	case "nhwc":
		shape = []int{1, px.h, px.w, px.c}
	case "hwc":
		shape = []int{px.h, px.w, px.c}
	case "flat":
		shape = []int{1, px.h * px.w * px.c}
	case "hw":
		if px.c != 1 {
			return nil, fmt.Errorf("layout hw needs one channel: add the step gray")
		}
		shape = []int{px.h, px.w}
	}
	v := px.v
	if planar && px.c > 1 {
		v = make([]float32, len(px.v))
		for i, x := range px.v {
			v[i%px.c*px.w*px.h+i/px.c] = x
		}
	}
	out := tensor.Of(v, shape...)
	if d.IsInteger() {
		lo, hi := d.IntRange()
		for i, x := range v {
			v := math.RoundToEven(float64(x))
			tensor.As[float32](out)[i] = float32(min(max(v, float64(lo)), float64(hi)))
		}
	}
	return tensor.Convert(out, d), nil
}
