package tidy

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
)

// transposeMerge makes one transpose of two.
func transposeMerge(s *state, n *ir.Node) (string, bool) {
	x := n.In(0)
	if !own(n, "Transpose") || x == nil || x.Def == nil || s.gone[x.Def] || !own(x.Def, "Transpose") {
		return "", false
	}
	inner, p, q := x.Def, x.Def.Ints("perm"), n.Ints("perm")
	if len(p) == 0 || len(p) != len(q) || inner.In(0) == nil {
		return "", false
	}
	perm := make([]int, len(p))
	for i, ax := range q {
		perm[i] = p[ax]
	}
	src := inner.Inputs[0]
	s.uses[x]--
	s.readers[x] = slices.DeleteFunc(s.readers[x], func(r *ir.Node) bool { return r == n })
	n.Inputs[0] = src
	s.uses[src]++
	s.readers[src] = append(s.readers[src], n)
	n.SetAttr("perm", ir.Int64s(perm))
	return fmt.Sprintf("merged with %q", inner.Label()), true
}

// elementwise are ops of one operand that work on each element alone.
var elementwise = []string{
	"Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg",
	"Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
}

// transposeSink moves a transpose below an elementwise op, if another
// transpose waits below: else nothing is won.
func transposeSink(s *state, n *ir.Node) (string, bool) {
	x := n.In(0)
	if !own(n, elementwise...) || len(n.Inputs) != 1 || x == nil || x.Def == nil || s.gone[x.Def] || !own(x.Def, "Transpose") {
		return "", false
	}
	if r, ok := s.single(x); !ok || r != n || !s.transposeBelow(n.Outputs[0]) {
		return "", false
	}
	t, y, src := x.Def, n.Outputs[0], x.Def.Inputs[0]
	if src == nil {
		return "", false
	}
	label := t.Label()
	// t: src → x, n: x → y becomes n: src → x, t: x → y; x has another shape now.
	n.Inputs[0], n.Outputs[0] = src, x
	t.Inputs[0], t.Outputs[0] = x, y
	x.Def, y.Def = n, t
	x.Type = ir.Type{}
	s.readers[src] = append(slices.DeleteFunc(s.readers[src], func(r *ir.Node) bool { return r == t }), n)
	s.readers[x] = []*ir.Node{t}
	delete(s.core, x)
	s.g.Infos = slices.DeleteFunc(s.g.Infos, func(v *ir.Value) bool { return v == x })
	i, j := slices.Index(s.g.Nodes, t), slices.Index(s.g.Nodes, n)
	s.g.Nodes = slices.Insert(slices.Delete(s.g.Nodes, i, i+1), j, t)
	return fmt.Sprintf("%q moved below it", label), true
}

// transposeBelow follows elementwise ops of one reader down to a transpose.
func (s *state) transposeBelow(v *ir.Value) bool {
	for {
		r, ok := s.single(v)
		switch {
		case !ok:
			return false
		case own(r, "Transpose"):
			return true
		case !own(r, elementwise...) || len(r.Outputs) != 1:
			return false
		}
		v = r.Outputs[0]
	}
}

// reshapeMerge skips a reshape that another one follows.
func reshapeMerge(s *state, n *ir.Node) (string, bool) {
	x := n.In(0)
	if !own(n, "Reshape") || len(n.Inputs) != 2 || x == nil || x.Def == nil || s.gone[x.Def] {
		return "", false
	}
	inner := x.Def
	if !own(inner, "Reshape", "Flatten", "Squeeze", "Unsqueeze") || inner.In(0) == nil || n.Inputs[1] == nil || n.Inputs[1].Const == nil {
		return "", false
	}
	target, err := n.Inputs[1].Const.Ints()
	if err != nil || slices.Contains(target, 0) { // 0 copies a size of the reshape before
		return "", false
	}
	src := inner.Inputs[0]
	s.uses[x]--
	s.readers[x] = slices.DeleteFunc(s.readers[x], func(r *ir.Node) bool { return r == n })
	n.Inputs[0] = src
	s.uses[src]++
	s.readers[src] = append(s.readers[src], n)
	return fmt.Sprintf("%q is not needed for it", inner.Label()), true
}
