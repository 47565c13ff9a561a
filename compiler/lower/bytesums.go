package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// summed takes the scale and the zero point out of a sum of dequantized bytes, or
// of windows of such: what is left is a sum of whole numbers, which is exact. It
// gives nil for all other sums.
func (r *rebuild) summed(n *ir.Node, in []*ir.Value) *ir.Value {
	if len(in) != 1 || in[0].DType() != tensor.F32 || n.Outputs[0].DType() != tensor.F32 {
		return nil
	}
	x, s := r.wholeTimes(in[0], -1)
	if x == nil || x.Const != nil || s.Len() != 1 {
		return nil
	}
	b, zero := offZero(x)
	if b != nil {
		x = b
	}
	bytes, most := widenedBytes(x), 255.0
	if !bytes {
		lo, hi, ok := r.clampedRange(x)
		if !ok {
			return nil
		}
		most = float64(max(-lo, hi))
	}
	var counts *tensor.Tensor
	terms := 1
	if n.Op == "window_sum" {
		counts, terms = windowCounts(n)
	} else {
		for _, a := range n.Ints("axes") {
			terms *= n.Inputs[0].Static()[a]
		}
		counts = tensor.Wrap([]float32{float32(terms)}).Reshaped()
	}
	if terms == 0 || counts == nil || (most+math.Abs(zero))*float64(terms) >= 1<<24 {
		return nil
	}
	if bytes && n.Op == "reduce_sum" {
		x = r.b.Cast(x.Def.Inputs[0], tensor.I32)
	}
	sum := r.b.Cast(r.moved(n, []*ir.Value{x}), tensor.F32)
	if zero != 0 {
		less := counts.Clone()
		for i := range less.Len() {
			less.SetFloat(i, counts.Float(i)*zero)
		}
		sum = r.b.Sub(sum, r.b.BroadcastTo(r.b.Const(less), sum.Static()...))
	}
	return r.scale(sum, s.Reshaped())
}

// clampedRange bounds floats that stand for whole numbers of few bits, maybe less
// a zero point.
func (r *rebuild) clampedRange(x *ir.Value) (lo, hi int, ok bool) {
	if n := x.Def; n != nil && n.Op == "sub" {
		z, isConst := scalarConst(n.Inputs[1])
		lo, hi, ok = r.clampedRange(n.Inputs[0])
		return lo - int(z), hi - int(z), ok && isConst && z == math.Trunc(z) && math.Abs(z) < 1<<16
	}
	if !r.clamped[x] {
		return 0, 0, false
	}
	return clampRange(x)
}

// windowCounts is how many elements each window has, one number if all have
// equally many, and the most that one has; nil for windows with gaps.
func windowCounts(n *ir.Node) (*tensor.Tensor, int) {
	size := n.Inputs[0].Static()[2:]
	geo, err := core.ConvGeometry(n, size, n.Ints("kernel"))
	if err != nil || slices.ContainsFunc(geo.XDil, func(d int) bool { return d > 1 }) {
		return nil, 0
	}
	t := tensor.New(tensor.F32, append([]int{1, 1}, geo.Out...)...)
	idx := make([]int, len(size))
	same := true
	for i := range t.Len() {
		for a, rest := len(idx)-1, i; a >= 0; a-- {
			idx[a], rest = rest%geo.Out[a], rest/geo.Out[a]
		}
		count := 1
		for a, o := range idx {
			taps := 0
			for k := range geo.Kernel[a] {
				if p := o*geo.Strides[a] + k*geo.Dilations[a] - geo.Lo[a]; p >= 0 && p < size[a] {
					taps++
				}
			}
			count *= taps
		}
		t.SetFloat(i, float64(count))
		same = same && t.Float(i) == t.Float(0)
	}
	if same && t.Len() > 0 {
		t = tensor.Wrap([]float32{float32(t.Float(0))}).Reshaped()
	}
	return t, tensor.Numel(geo.Kernel)
}

// mean divides a scaled sum by how many it is of: one product, of which the next
// scale may become a part.
func (r *rebuild) mean(n *ir.Node, in []*ir.Value) *ir.Value {
	f, ok := r.scaled[in[0]]
	c, isConst := scalarConst(in[1])
	if !ok || !isConst || f.over != 0 || f.clip != nil || f.scale.Len() != 1 || c < 1 || c != math.Trunc(c) || r.onlyRounded(n.Outputs[0]) {
		return nil
	}
	z := r.b.Mul(f.sum, r.b.Scalar(tensor.F32, f.scale.Float(0)/c))
	f.over = c
	r.scaled[z] = f
	return z
}

// halves reports a mean that may lie in the middle between two whole numbers
// and whose divisor has no exact reciprocal: only a division finds that middle.
func (f scaledSum) halves() bool {
	frac, _ := math.Frexp(f.over)
	return f.over != 0 && math.Mod(f.over, 2) == 0 && frac != 0.5
}
