package core

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// series is 0, ±1, ±2, … in a fixed order of small whole numbers, whose sums of
// products are exact in every order.
func series(shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, float64(i*7%11-5))
	}
	return t
}

func TestDotAgainstTheSum(t *testing.T) {
	for _, s := range []struct{ batch, m, k, c int }{{1, 4, 3, 1}, {2, 5, 7, 6}, {1, 9, 1, 300}, {3, 4, 0, 2}, {1, 3, 5, 5}} {
		b := NewBuilder("dot")
		b.FoldLimit = -1
		l, r := series(s.batch, s.m, s.k), series(s.batch, s.k, s.c)
		y := b.Dot(b.Const(l), b.Const(r), []int{0}, []int{0}, []int{2}, []int{1}, tensor.F32).Const
		for i := range y.Len() {
			n, row, col := i/(s.m*s.c), i/s.c%s.m, i%s.c
			want := 0.0
			for k := range s.k {
				want += l.Float((n*s.m+row)*s.k+k) * r.Float((n*s.k+k)*s.c+col)
			}
			if y.Float(i) != want {
				t.Errorf("%+v: element %d is %v, want %v", s, i, y.Float(i), want)
			}
		}
	}
}

// TestConvAgainstTheSum takes each output element as the sum that defines it.
func TestConvAgainstTheSum(t *testing.T) {
	for _, s := range []struct {
		n, c, m, groups, h, w, kh, kw  int
		stride, dilation, lo, hi, gaps int
	}{
		{2, 4, 6, 2, 5, 6, 3, 2, 1, 1, 1, 0, 1},
		{1, 3, 5, 1, 9, 40, 3, 3, 2, 2, 2, 1, 1},
		{1, 2, 4, 1, 3, 3, 2, 2, 1, 1, 1, 1, 2},
		{1, 0, 4, 1, 3, 3, 2, 2, 1, 1, 0, 0, 1}, // sums of nothing
		{1, 3, 3, 3, 4, 4, 3, 3, 1, 1, 1, 1, 1}, // one output channel per group
	} {
		b := NewBuilder("conv")
		b.FoldLimit = -1
		x, w := series(s.n, s.c, s.h, s.w), series(s.m, s.c/s.groups, s.kh, s.kw)
		both := func(v int) []int { return []int{v, v} }
		y := b.Conv(b.Const(x), b.Const(w), ConvSpec{Strides: both(s.stride), Dilations: both(s.dilation), Lo: both(s.lo), Hi: both(s.hi), XDil: both(s.gaps), Groups: s.groups}).Const
		at := func(o, k, size int) int { // the element of x under a tap, or -1
			p := o*s.stride + k*s.dilation - s.lo
			if p < 0 || p%s.gaps != 0 || p/s.gaps >= size {
				return -1
			}
			return p / s.gaps
		}
		oh, ow := y.Shape[2], y.Shape[3]
		cpg, mpg := s.c/s.groups, s.m/s.groups
		for i := range y.Len() {
			n, m, r, q := i/(s.m*oh*ow), i/(oh*ow)%s.m, i/ow%oh, i%ow
			want := 0.0
			for c := range cpg {
				for a := range s.kh {
					for e := range s.kw {
						h, v := at(r, a, s.h), at(q, e, s.w)
						if h >= 0 && v >= 0 {
							want += w.Float(((m*cpg+c)*s.kh+a)*s.kw+e) * x.Float(((n*s.c+m/mpg*cpg+c)*s.h+h)*s.w+v)
						}
					}
				}
			}
			if y.Float(i) != want {
				t.Fatalf("%+v: element %d is %v, want %v", s, i, y.Float(i), want)
			}
		}
	}
}
