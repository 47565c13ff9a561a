package conformance

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func f32s(v ...float32) *tensor.Tensor { return tensor.Of(v, len(v)) }

func as(d tensor.DType, v ...float64) *tensor.Tensor {
	t := tensor.New(d, len(v))
	for i, x := range v {
		t.SetFloat(i, x)
	}
	return t
}

func words(v ...string) *tensor.Tensor {
	t := tensor.New(tensor.String, len(v))
	copy(t.Strings(), v)
	return t
}

func TestCompare(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	lenient := Tolerance{RTol: 1e-3, ATol: 1e-7, Lenient: true}
	stepped := lenient
	stepped.Step = 0.25
	for _, c := range []struct {
		name      string
		got, want *tensor.Tensor
		tol       Tolerance
		quantized bool
		same      bool
	}{
		{"equal", f32s(1, 2), f32s(1, 2), Tolerance{}, false, true},
		{"inside rtol", f32s(1000.9), f32s(1000), Standard, false, true},
		{"outside rtol", f32s(1001.1), f32s(1000), Standard, false, false},
		{"inside atol", f32s(0.9e-7), f32s(0), Standard, false, true},
		{"outside atol", f32s(1.1e-7), f32s(0), Standard, false, false},
		{"lenient atol", f32s(0.9e-5), f32s(0), lenient, false, true},
		{"beyond lenient atol", f32s(1.1e-5), f32s(0), lenient, false, false},
		{"lenient against the largest", f32s(1e6, 1.9), f32s(1e6, 0), lenient, false, true},
		{"beyond it", f32s(1e6, 2.1), f32s(1e6, 0), lenient, false, false},
		{"step", f32s(0.25), f32s(0), stepped, false, true},
		{"beyond the step", f32s(0.26), f32s(0), stepped, false, false},
		{"NaN", f32s(nan), f32s(nan), Standard, false, true},
		{"NaN for a number", f32s(nan), f32s(1), lenient, false, false},
		{"number for NaN", f32s(1), f32s(nan), lenient, false, false},
		{"infinity", f32s(inf), f32s(inf), Standard, false, true},
		{"wrong infinity", f32s(-inf), f32s(inf), lenient, false, false},
		{"number for infinity", f32s(3e38), f32s(inf), lenient, false, false},
		{"infinity for a number", f32s(inf), f32s(3e38), lenient, false, false},
		// float16 has 11 significant bits: neighbours of 1 are 2^-10 apart.
		{"adjacent float16", as(tensor.F16, 1+0x1p-10), as(tensor.F16, 1), Tolerance{Lenient: true}, false, true},
		{"two steps of float16", as(tensor.F16, 1+0x1p-9), as(tensor.F16, 1), Tolerance{Lenient: true}, false, false},
		{"adjacent bfloat16", as(tensor.BF16, 1+0x1p-7), as(tensor.BF16, 1), Tolerance{Lenient: true}, false, true},
		{"two steps of bfloat16", as(tensor.BF16, 1+0x1p-6), as(tensor.BF16, 1), Tolerance{Lenient: true}, false, false},
		{"strict bfloat16", as(tensor.BF16, 1+0x1p-7), as(tensor.BF16, 1), Standard, false, false},
		{"integer", as(tensor.I8, 5), as(tensor.I8, 4), lenient, false, false},
		{"quantized off by one", as(tensor.I8, 5), as(tensor.I8, 4), lenient, true, true},
		{"strict off by one", as(tensor.I8, 5), as(tensor.I8, 4), Standard, true, false},
		{"quantized off by two", as(tensor.U8, 6), as(tensor.U8, 4), lenient, true, false},
		{"wide integer off by one", as(tensor.I32, 5), as(tensor.I32, 4), lenient, true, false},
		{"type", as(tensor.I32, 5), as(tensor.I64, 5), lenient, false, false},
		{"shape", f32s(1, 2), f32s(1, 2).Reshaped(2, 1), lenient, false, false},
		{"strings", words("a", "b"), words("a", "b"), Standard, false, true},
		{"other strings", words("a", "b"), words("a", "c"), lenient, false, false},
	} {
		err := Compare([]*ir.Data{ir.TensorData(c.got)}, []*ir.Data{ir.TensorData(c.want)}, c.tol, c.quantized)
		if (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCompareForms(t *testing.T) {
	one, two := ir.TensorData(f32s(1)), ir.TensorData(f32s(2))
	none := ir.OptionalData(nil, nil)
	for _, c := range []struct {
		name      string
		got, want *ir.Data
		same      bool
	}{
		{"sequence", ir.SequenceData(nil, one, two), ir.SequenceData(nil, one, two), true},
		{"order of a sequence", ir.SequenceData(nil, two, one), ir.SequenceData(nil, one, two), false},
		{"length of a sequence", ir.SequenceData(nil, one), ir.SequenceData(nil, one, two), false},
		{"sequence for a tensor", ir.SequenceData(nil, one), one, false},
		{"optional", ir.OptionalData(nil, one), ir.OptionalData(nil, one), true},
		{"content of an optional", ir.OptionalData(nil, one), one, true},
		{"none", none, none, true},
		{"none for a tensor", none, one, false},
		{"tensor for none", one, none, false},
		{"nothing at all", nil, one, false},
	} {
		err := Compare([]*ir.Data{c.got}, []*ir.Data{c.want}, Standard, false)
		if (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if Compare(nil, []*ir.Data{one}, Standard, false) == nil {
		t.Error("a missing output is not noticed")
	}
}

// TestNetworkTolerance holds that the bound of a precision counts in models of
// several ops only: √nodes of it, of the largest magnitude.
func TestNetworkTolerance(t *testing.T) {
	tol := Tolerance{RTol: 0, ATol: 1e-7, Bound: 1e-2}
	for _, c := range []struct {
		name      string
		nodes     int
		step      float64
		got, want *tensor.Tensor
		same      bool
	}{
		{"one op", 1, 0, f32s(100, 0.1), f32s(100, 0), false},
		{"one op, one step off", 1, 0.5, f32s(0.5), f32s(0), false},
		// √4·1e-2·100 = 2
		{"four ops", 4, 0, f32s(100, 1.9), f32s(100, 0), true},
		{"beyond", 4, 0, f32s(100, 2.1), f32s(100, 0), false},
		{"one step off", 4, 3, f32s(100, 3), f32s(100, 0), true},
		{"two steps off", 4, 3, f32s(100, 6), f32s(100, 0), false},
	} {
		err := Compare([]*ir.Data{ir.TensorData(c.got)}, []*ir.Data{ir.TensorData(c.want)}, tol.ofNodes(c.nodes, c.step), false)
		if (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestStatedError holds that outputs may be within the error that a runner
// states, as the root of the mean square, and that whole numbers may not.
func TestStatedError(t *testing.T) {
	// √(0.03²/2) of √((1+1)/2): 0.021
	got, want := []*ir.Data{ir.TensorData(f32s(1, 1.03))}, []*ir.Data{ir.TensorData(f32s(1, 1))}
	if !within(got, want, 0.022) || within(got, want, 0.02) {
		t.Error("an error of 0.021 is not told from 0.020 and 0.022")
	}
	if within([]*ir.Data{ir.TensorData(as(tensor.I32, 2))}, []*ir.Data{ir.TensorData(as(tensor.I32, 3))}, 10) {
		t.Error("whole numbers may differ")
	}
	if within(got, []*ir.Data{ir.TensorData(f32s(1, float32(math.NaN())))}, 10) {
		t.Error("a number stands for NaN")
	}
}
