package wide

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Deviation is how far values are from those of float64.
type Deviation struct {
	// RMS is the root of the mean square of the differences over that of the
	// values: the figure that bounds are about.
	RMS float64 `json:"rms"`
	// Max is the largest difference, over the root of the mean square of the
	// values.
	Max float64 `json:"max"`
	// Broken counts elements of which only one side is finite.
	Broken int `json:"broken,omitempty"`
}

// Within reports whether the deviation keeps a bound.
func (d Deviation) Within(bound float64) bool { return d.Broken == 0 && d.RMS <= bound }

// Of compares values with those of the float64 twin. Elements that are the same
// infinity or both not a number agree; so do a float64 beyond the range of f32
// and the infinity of its sign. Values that are all zero have the deviation 1
// as soon as one differs.
func Of(got, want *tensor.Tensor) Deviation {
	var d Deviation
	var diff, sum, most float64
	each(got, want, func(x, y float64) {
		switch bad := math.IsNaN(x) || math.IsInf(x, 0); {
		case bad && (math.IsNaN(x) == math.IsNaN(y)) && (math.IsNaN(x) || beyond(y) && (x > 0) == (y > 0)):
		case bad || math.IsNaN(y) || beyond(y):
			d.Broken++
		default:
			e := x - y
			diff, sum, most = diff+e*e, sum+y*y, max(most, math.Abs(e))
		}
	})
	switch n := float64(got.Len()); {
	case diff == 0:
	case sum == 0:
		d.RMS, d.Max = 1, 1
	default:
		d.RMS, d.Max = math.Sqrt(diff/sum), most/math.Sqrt(sum/n)
	}
	return d
}

// beyond reports whether f32 has no finite number for a value.
func beyond(y float64) bool { return math.IsInf(float64(float32(y)), 0) }

func each(got, want *tensor.Tensor, f func(x, y float64)) {
	if got.DType == tensor.F32 && want.DType == tensor.F64 {
		a, b := tensor.As[float32](got), tensor.As[float64](want)
		for i := range a {
			f(float64(a[i]), b[i])
		}
		return
	}
	for i := range got.Len() {
		f(got.Float(i), want.Float(i))
	}
}
