package data

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/nearest"
)

// Preprocess is a recipe from pixels to a tensor: steps in the order in which
// they were written, then the layout and element type of the result.
type Preprocess struct {
	steps  []step
	Layout string       // nchw, nhwc, chw, hwc, hw or flat
	DType  tensor.DType // the element type of the result
	filter string
}

type step struct {
	name string
	args []float64
}

// stepKind says how many numbers a step takes.
type stepKind struct {
	doc      string
	min, max int
}

// stepKinds is the table of steps. Pixels begin as RGB, 0 to 255.
var stepKinds = map[string]stepKind{
	"resize": {"shorter side to N, or exactly WIDTHxHEIGHT", 1, 2},
	"fit":    {"longer side to N, the rest padded with 0 at right and bottom", 1, 1},
	"crop":   {"the middle N, or WIDTHxHEIGHT", 1, 2},
	"gray":   {"one channel, ITU-R 601 luma", 0, 0},
	"rgb":    {"three channels, red first", 0, 0},
	"bgr":    {"three channels, blue first", 0, 0},
	"invert": {"255 minus the pixel", 0, 0},
	"scale":  {"times X", 1, 1},
	"mean":   {"minus X, or one number per channel", 1, 4},
	"std":    {"divided by X, or one number per channel", 1, 4},
}

// PreprocessHelp is the recipe language in one paragraph, for help texts.
const PreprocessHelp = `steps in order, separated by commas: resize=256 (shorter side) or resize=WxH, fit=N,
crop=224 or crop=WxH, gray, rgb, bgr, invert, scale=1/255, mean=R:G:B, std=R:G:B,
and filter=bilinear|nearest|bicubic, layout=nchw|nhwc|chw|hwc|hw|flat, dtype=float|uint8|int8`

var (
	layouts = []string{"nchw", "nhwc", "chw", "hwc", "hw", "flat"}
	filters = []string{"bilinear", "nearest", "bicubic"}
)

// ParsePreprocess reads a recipe such as
// "resize=256,crop=224,scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225".
func ParsePreprocess(spec string) (*Preprocess, error) {
	p := &Preprocess{Layout: "nchw", DType: tensor.F32, filter: "bilinear"}
	for part := range strings.SplitSeq(spec, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		if err := p.add(strings.ToLower(key), strings.ToLower(value)); err != nil {
			return nil, fault.New(fault.Usage, "preprocessing step %q: %w", part, err).Hint("%s", PreprocessHelp)
		}
	}
	return p, nil
}

func (p *Preprocess) add(key, value string) error {
	switch key {
	case "layout":
		return pick(&p.Layout, value, layouts)
	case "filter":
		return pick(&p.filter, value, filters)
	case "dtype":
		d, ok := tensor.ParseDType(value)
		if !ok || !d.IsNumeric() {
			return fmt.Errorf("unknown element type %q", value)
		}
		p.DType = d
		return nil
	}
	kind, ok := stepKinds[key]
	if !ok {
		names := []string{"layout", "filter", "dtype"}
		for n := range stepKinds {
			names = append(names, n)
		}
		if n := nearest.Find(key, names); n != "" {
			return fmt.Errorf("unknown step, did you mean %q?", n)
		}
		return fmt.Errorf("unknown step")
	}
	nums, err := numbers(key, value)
	if err != nil {
		return err
	}
	if len(nums) < kind.min || len(nums) > kind.max {
		return fmt.Errorf("%d numbers given, it means: %s", len(nums), kind.doc)
	}
	if key == "std" || key == "resize" || key == "crop" || key == "fit" {
		for _, v := range nums {
			if v == 0 || (key != "std" && (v < 1 || v > 1<<15 || v != float64(int(v)))) {
				return fmt.Errorf("%g is out of range", v)
			}
		}
	}
	p.steps = append(p.steps, step{key, nums})
	return nil
}

func pick(dst *string, value string, allowed []string) error {
	for _, a := range allowed {
		if a == value {
			*dst = value
			return nil
		}
	}
	return fmt.Errorf("use one of %s", strings.Join(allowed, " "))
}

// numbers reads 256, 224x224, 1/255 or 0.1:0.2:0.3.
func numbers(key, value string) ([]float64, error) {
	if value == "" {
		return nil, nil
	}
	sep := ":"
	if key == "resize" || key == "crop" {
		sep = "x"
	}
	var out []float64
	for s := range strings.SplitSeq(value, sep) {
		num, den, frac := strings.Cut(s, "/")
		v, err := strconv.ParseFloat(num, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", s)
		}
		if frac {
			d, err := strconv.ParseFloat(den, 64)
			if err != nil || d == 0 {
				return nil, fmt.Errorf("%q is not a number", s)
			}
			v /= d
		}
		out = append(out, v)
	}
	return out, nil
}

// For adds to a recipe what a model input of this type and shape makes plain:
// the layout, gray for one channel, the size. A nil recipe stands for an
// empty one; sizes and channels that the recipe has stay.
func (p *Preprocess) For(d tensor.DType, shape []int) *Preprocess {
	out := &Preprocess{Layout: "nchw", DType: d, filter: "bilinear"}
	if p != nil {
		*out = *p
		out.steps = append([]step{}, p.steps...)
		if p.DType == tensor.F32 {
			out.DType = d
		}
	}
	var c, h, w int
	switch n := len(shape); {
	case n == 4 && (shape[1] == 1 || shape[1] == 3):
		out.Layout, c, h, w = "nchw", shape[1], shape[2], shape[3]
	case n == 4 && (shape[3] == 1 || shape[3] == 3):
		out.Layout, c, h, w = "nhwc", shape[3], shape[1], shape[2]
	case n == 3 && (shape[0] == 1 || shape[0] == 3):
		out.Layout, c, h, w = "chw", shape[0], shape[1], shape[2]
	case n == 3 && (shape[2] == 1 || shape[2] == 3):
		out.Layout, c, h, w = "hwc", shape[2], shape[0], shape[1]
	default:
		return out
	}
	if !out.has("resize", "crop", "fit") && h > 0 && w > 0 {
		out.steps = slices.Insert(out.steps, 0, step{"resize", []float64{float64(w), float64(h)}})
	}
	if c == 1 && !out.has("gray") {
		at := 0
		for at < len(out.steps) && isGeometry(out.steps[at].name) {
			at++
		}
		out.steps = slices.Insert(out.steps, at, step{"gray", nil})
	}
	return out
}

func (p *Preprocess) has(names ...string) bool {
	for _, s := range p.steps {
		for _, n := range names {
			if s.name == n {
				return true
			}
		}
	}
	return false
}
