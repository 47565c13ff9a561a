package scalar

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestAgreesWithCore compares every row with core's, on operands that include
// the edges of the types.
func TestAgreesWithCore(t *testing.T) {
	fs := []float64{0, math.Copysign(0, -1), 1, -1, 0.5, -2.5, 3.25, 1e30, -1e-30, math.Inf(1), math.Inf(-1), math.NaN()}
	is := []int64{0, 1, -1, 2, -3, 7, 100, math.MaxInt64, math.MinInt64}
	eqF := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) || a != a && b != b }
	truth := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	for _, op := range core.Table() {
		s := op.Scalar
		if s == nil || s.Arity > 2 || op.Name == "cast" || op.Name == "bitcast" {
			continue
		}
		f := Lookup(op.Name)
		if f == nil {
			t.Errorf("%s has no row", op.Name)
			continue
		}
		if f.Test != s.Bool {
			t.Errorf("%s: Test is %v", op.Name, f.Test)
		}
		for _, a := range fs {
			switch {
			case s.F1 != nil && s.Bool:
				if truth(f.T1(a)) != int64(s.F1(a)) {
					t.Errorf("%s(%v)", op.Name, a)
				}
			case s.F1 != nil:
				if !eqF(f.F1(a), s.F1(a)) {
					t.Errorf("%s(%v) = %v, core says %v", op.Name, a, f.F1(a), s.F1(a))
				}
			}
			for _, b := range fs {
				switch {
				case s.F2 != nil && s.Bool:
					if truth(f.FT(a, b)) != int64(s.F2(a, b)) {
						t.Errorf("%s(%v, %v)", op.Name, a, b)
					}
				case s.F2 != nil:
					if got, want := f.F2(a, b), s.F2(a, b); !eqF(got, want) && !(got == 0 && want == 0) {
						t.Errorf("%s(%v, %v) = %v, core says %v", op.Name, a, b, got, want)
					}
				}
			}
		}
		for _, a := range is {
			if s.I1 != nil && f.I1(a) != s.I1(a) {
				t.Errorf("%s(%d) = %d, core says %d", op.Name, a, f.I1(a), s.I1(a))
			}
			for _, b := range is {
				if f.Shift && (b < 0 || b > 63) {
					continue
				}
				switch {
				case s.I2 != nil && s.Bool:
					if truth(f.IT(a, b)) != s.I2(a, b) {
						t.Errorf("%s(%d, %d)", op.Name, a, b)
					}
				case s.I2 != nil:
					if f.I2(a, b) != s.I2(a, b) {
						t.Errorf("%s(%d, %d) = %d, core says %d", op.Name, a, b, f.I2(a, b), s.I2(a, b))
					}
				}
				if s.U2 != nil && f.U2 != nil && f.U2(uint64(a), uint64(b)) != s.U2(uint64(a), uint64(b)) {
					t.Errorf("%s(%d, %d) of unsigned", op.Name, uint64(a), uint64(b))
				}
			}
		}
	}
}

// TestConversions: values worked out by hand.
func TestConversions(t *testing.T) {
	for _, c := range []struct {
		to   tensor.DType
		v    float64
		want int64
	}{
		{tensor.I8, -2.9, -2},
		{tensor.I8, 300, 44},             // 300 − 256
		{tensor.U8, -1, 255},             // −1 in 32 bits, cut
		{tensor.I32, 3e9, math.MinInt32}, // does not fit 32 bits
		{tensor.U32, 3e9, 3000000000},
		{tensor.I8, 1e10, 0}, // the smallest 32-bit value, cut
		{tensor.I64, math.NaN(), math.MinInt64},
		{tensor.Bool, math.NaN(), 1},
		{tensor.Bool, math.Copysign(0, -1), 0},
	} {
		if got := FloatToInt(c.to, c.v); got != c.want {
			t.Errorf("%v to %s = %d, want %d", c.v, c.to, got, c.want)
		}
	}
	// 2^24+1 lies halfway between two F32; the even one is 2^24.
	if got := IntToFloat(tensor.I32, tensor.F32, 1<<24+1); got != 1<<24 {
		t.Errorf("2^24+1 as f32 = %v", got)
	}
	if got := Wrap(tensor.Bool, ^int64(1)); got != 0 {
		t.Errorf("not true = %d", got)
	}
	if got := Round(tensor.BF16, 1.00390625); got != 1 { // 1+2^-8 ties to even
		t.Errorf("1+2^-8 as bf16 = %v", got)
	}
	if got := FromBits(tensor.F16, ToBits(tensor.F16, -1.5)); got != -1.5 {
		t.Errorf("bits of -1.5 and back = %v", got)
	}
}
