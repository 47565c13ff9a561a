package tidy

import (
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// convBefore gives the convolution whose result n alone reads, if its weights
// are constants of float32 or float64 that nothing else would miss.
func (s *state) convBefore(n *ir.Node) (*ir.Node, bool) {
	x := n.In(0)
	if x == nil || x.Def == nil || s.gone[x.Def] || !own(x.Def, "Conv") {
		return nil, false
	}
	if r, ok := s.single(x); !ok || r != n {
		return nil, false
	}
	c := x.Def
	w, b := c.In(1), c.In(2)
	if w == nil || w.Const == nil || len(w.Const.Shape) < 3 || (w.Const.DType != tensor.F32 && w.Const.DType != tensor.F64) {
		return nil, false
	}
	return c, b == nil || b.Const != nil
}

// scaleConv replaces w by w·f and b by b·f + a, channel by channel, and lets
// the convolution give n's output.
func (s *state) scaleConv(c, n *ir.Node, f, a []float64) {
	w := c.Inputs[1].Const
	nw, nb := tensor.New(w.DType, w.Shape...), tensor.New(w.DType, w.Shape[0])
	per := w.Len() / max(1, w.Shape[0])
	for i := range w.Len() {
		nw.SetFloat(i, w.Float(i)*f[i/max(1, per)])
	}
	for i := range nb.Len() {
		b := 0.0
		if v := c.In(2); v != nil {
			b = v.Const.Float(i)
		}
		nb.SetFloat(i, b*f[i]+a[i])
	}
	bias := c.Inputs[1].Name + "_bias"
	if v := c.In(2); v != nil {
		bias = v.Name
	}
	wv, bv := s.newConstant(c.Inputs[1].Name, nw), s.newConstant(bias, nb)
	c.Inputs = []*ir.Value{c.Inputs[0], wv, bv}
	s.uses[wv], s.uses[bv] = 1, 1
	s.readers[wv], s.readers[bv] = []*ir.Node{c}, []*ir.Node{c}
	s.remove(n)
	out := n.Outputs[0]
	c.Outputs[0], out.Def = out, c
}

// convNorm folds y = scale·(x-mean)/sqrt(var+eps) + B.
func convNorm(s *state, n *ir.Node) (string, bool) {
	if !own(n, "BatchNormalization") || len(present(n.Outputs)) != 1 || n.Int("training_mode", 0) != 0 || len(n.Inputs) != 5 {
		return "", false
	}
	// Before opset 7 is_test = 0 meant training; spatial = 0 is another op.
	if n.Int("spatial", 1) != 1 || (s.opset() < 7 && n.Int("is_test", 0) == 0) {
		return "", false
	}
	c, ok := s.convBefore(n)
	if !ok {
		return "", false
	}
	ch := c.Inputs[1].Const.Shape[0]
	for _, v := range n.Inputs[1:] {
		if v == nil || v.Const == nil || v.Const.Len() != ch {
			return "", false
		}
	}
	f, a := make([]float64, ch), make([]float64, ch)
	eps := n.Float("epsilon", float64(float32(1e-5)))
	for i := range ch {
		f[i] = n.Inputs[1].Const.Float(i) / math.Sqrt(n.Inputs[4].Const.Float(i)+eps)
		a[i] = n.Inputs[2].Const.Float(i) - n.Inputs[3].Const.Float(i)*f[i]
		if math.IsNaN(f[i]+a[i]) || math.IsInf(f[i], 0) || math.IsInf(a[i], 0) {
			return "", false
		}
	}
	into := c.Label()
	s.scaleConv(c, n, f, a)
	return fmt.Sprintf("folded into the weights of %q", into), true
}

// convAffine folds a Mul or Add with one number per channel.
func convAffine(s *state, n *ir.Node) (string, bool) {
	if !own(n, "Mul", "Add") || len(n.Inputs) != 2 || s.opset() < 7 {
		return "", false
	}
	c, ok := s.convBefore(n)
	if !ok || n.Inputs[1] == nil || n.Inputs[1].Const == nil {
		return "", false
	}
	w, k := c.Inputs[1].Const, n.Inputs[1].Const
	if k.DType != w.DType || !perChannel(k.Shape, w.Shape) {
		return "", false
	}
	f, a := make([]float64, w.Shape[0]), make([]float64, w.Shape[0])
	for i := range f {
		v := k.Float(i % k.Len())
		f[i], a[i] = 1, v
		if n.Op == "Mul" {
			f[i], a[i] = v, 0
		}
	}
	into := c.Label()
	s.scaleConv(c, n, f, a)
	return fmt.Sprintf("folded into the weights of %q", into), true
}

// perChannel reports a shape [C,1,…] or [1,C,1,…] of a convolution with
// weights [C,…], or a single number, that adds no axes.
func perChannel(k, w []int) bool {
	rank := len(w)
	n := tensor.Numel(k)
	if len(k) > rank {
		return false
	}
	if n == 1 {
		return true
	}
	at := len(k) - (rank - 1)
	return n == w[0] && at >= 0 && k[at] == w[0]
}
