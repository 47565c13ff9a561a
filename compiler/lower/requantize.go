package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// scaledSum is a sum of whole numbers, what it is multiplied with (one number,
// or one for each channel), what of a mean it is divided by, and the clips that
// follow.
type scaledSum struct {
	sum   *ir.Value
	scale *tensor.Tensor
	over  float64 // 0: no mean
	clip  []bound
}

// bound is a max or min with a constant.
type bound struct {
	op string
	at float64
}

// scale multiplies a sum of whole numbers and remembers that it did.
func (r *rebuild) scale(sum *ir.Value, by *tensor.Tensor) *ir.Value {
	z := r.b.Mul(sum, r.b.Const(by))
	r.scaled[z] = scaledSum{sum: sum, scale: by}
	return z
}

// requantized rebuilds what stands between the sum of a quantized layer and the
// next quantization as integer kernels compute it: bias, one scale, clips. It
// gives nil for all other nodes.
func (r *rebuild) requantized(n *ir.Node, in []*ir.Value) *ir.Value {
	switch n.Op {
	case "add":
		return r.wholeBias(n, in)
	case "max", "min":
		r.clipped(n, in)
	case "div":
		if y := r.mean(n, in); y != nil {
			return y
		}
		return r.rescaled(n, in)
	case "reduce_sum", "window_sum":
		return r.summed(n, in)
	}
	return nil
}

// wholeBias adds a quantized layer's bias to the sum of whole numbers, before
// the scale: sum·s + b = (sum + b/s)·s, because such a bias is a whole number
// of the same scale. What is added is exact, and the only rounding is that of
// one product: the result is that of integer kernels, and it does not depend on
// whether a processor fuses a product with a sum.
func (r *rebuild) wholeBias(n *ir.Node, in []*ir.Value) *ir.Value {
	for i := range 2 {
		f, ok := r.scaled[in[i]]
		if !ok || f.clip != nil || f.over != 0 || r.uses[n.Inputs[i]] != 1 || !slices.Equal(core.Shape(n.Outputs[0]), core.Shape(f.sum)) {
			continue
		}
		axis := f.sum.Rank() - 1
		if f.sum.Def.Op == "conv" {
			axis = 1
		}
		b := perChannel(in[1-i], axis)
		if b == nil {
			continue
		}
		if q := wholeMultiples(b, f.scale, axis, f.sum.Rank()); q != nil {
			return r.scale(r.b.Add(f.sum, r.b.Const(q)), f.scale)
		}
	}
	return nil
}

// wholeMultiples divides a bias by the scale. It gives nil unless every
// quotient is a whole number that F32 holds, up to the rounding of the bias and
// of the scale.
func wholeMultiples(b, scale *tensor.Tensor, axis, rank int) *tensor.Tensor {
	shape := slices.Repeat([]int{1}, rank)
	shape[axis] = max(b.Len(), scale.Len())
	q := tensor.New(tensor.F32, shape...)
	for i := range q.Len() {
		v := b.Float(i%b.Len()) / scale.Float(i%scale.Len())
		w := math.RoundToEven(v)
		if !(math.Abs(w) < 1<<24) || math.Abs(v-w) > math.Abs(w)*0x1p-22 {
			return nil
		}
		q.SetFloat(i, w)
	}
	return q
}

// clipped remembers a clip of a scaled sum. The node is built as it is.
func (r *rebuild) clipped(n *ir.Node, in []*ir.Value) {
	f, ok := r.scaled[in[0]]
	c, isConst := scalarConst(in[1])
	if !ok || !isConst || r.uses[n.Inputs[0]] != 1 || n.Outputs[0].DType() != tensor.F32 {
		return
	}
	f.clip = append(slices.Clone(f.clip), bound{n.Op, c})
	r.scaled[r.b.Node(n.Op, in, r.attrs(n)...)] = f
}

// rescaled rewrites the division by the next layer's scale, before it is
// rounded, as one product: clip(sum·s)/t = clip'(sum·(s/t)). Two roundings less
// decide about ties.
func (r *rebuild) rescaled(n *ir.Node, in []*ir.Value) *ir.Value {
	f, ok := r.scaled[in[0]]
	t, isConst := scalarConst(in[1])
	if !isConst || !(t > 0) || !r.onlyRounded(n.Outputs[0]) {
		return nil
	}
	if !ok {
		return r.rescaledBytes(in[0], t)
	}
	if r.uses[n.Inputs[0]] != 1 {
		return nil
	}
	scale := tensor.New(tensor.F32, f.scale.Shape...)
	for i := range scale.Len() {
		s := f.scale.Float(i) / t / max(f.over, 1)
		if m := math.Abs(s); !(m > 1e-30 && m < 1e30) {
			return nil
		}
		scale.SetFloat(i, s)
	}
	y := r.b.Mul(f.sum, r.b.Const(scale))
	if scale.Len() == 1 && f.scale.Float(0) == t && f.halves() {
		y = r.b.Div(f.sum, r.b.Scalar(tensor.F32, f.over))
	}
	for _, c := range f.clip {
		y = r.b.Binary(c.op, y, r.b.Scalar(tensor.F32, c.at/t))
	}
	return y
}

// onlyRounded reports that a value is rounded to whole numbers and not used
// otherwise.
func (r *rebuild) onlyRounded(v *ir.Value) bool {
	return r.uses[v] == len(r.readers[v]) && !slices.ContainsFunc(r.readers[v], func(n *ir.Node) bool { return n.Op != "round" })
}
