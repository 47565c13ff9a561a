package tidy

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// identity leaves out a node that gives its first input unchanged.
func identity(s *state, n *ir.Node) (string, bool) {
	x := n.In(0)
	if x == nil || len(n.Outputs) == 0 || n.Outputs[0] == nil || len(present(n.Outputs)) != 1 {
		return "", false
	}
	why, ok := s.isIdentity(n, x)
	if !ok || !s.bypass(n, x) {
		return "", false
	}
	return why, true
}

func (s *state) isIdentity(n *ir.Node, x *ir.Value) (string, bool) {
	switch {
	case own(n, "Identity"):
		return "it copies", true
	case own(n, "Dropout") && s.opset() >= 7 && (len(n.Inputs) < 3 || n.Inputs[2] == nil):
		return "dropout does nothing outside training", true
	case own(n, "Concat", "Sum", "Max", "Min", "Mean") && len(n.Inputs) == 1:
		return "it has one operand", true
	case own(n, "Transpose") && isIota(n.Ints("perm")):
		return "its permutation moves nothing", true
	case own(n, "Cast"):
		d, ok := s.dtype(x)
		return "it casts to the type that the value has", ok && int(d) == n.Int("to", 0)
	case own(n, "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"):
		a, okA := s.shape(x)
		b, okB := s.shape(n.Outputs[0])
		return "the value has that shape already", s.core != nil && okA && okB && slices.Equal(a, b)
	case own(n, "Mul", "Div"):
		return "the factor is 1", s.isScalar(n.In(1), 1) && s.keepsShape(n, x)
	case own(n, "Sub"):
		// x + 0 is not offered: it turns -0 into +0.
		return "the subtrahend is 0", s.isScalar(n.In(1), 0) && s.keepsShape(n, x)
	}
	return "", false
}

func isIota(perm []int) bool {
	for i, p := range perm {
		if p != i {
			return false
		}
	}
	return len(perm) > 0
}

// isScalar reports a constant of one element with that value.
func (s *state) isScalar(v *ir.Value, want float64) bool {
	if v == nil || v.Const == nil || v.Const.Len() != 1 || !v.Const.DType.IsNumeric() {
		return false
	}
	f := v.Const.Float(0)
	return f == want && (want != 0 || !isNegZero(v.Const))
}

func isNegZero(t *tensor.Tensor) bool { return t.DType.IsFloat() && 1/t.Float(0) < 0 }

// keepsShape reports that broadcasting the second operand adds no axes.
func (s *state) keepsShape(n *ir.Node, x *ir.Value) bool {
	if len(n.In(1).Const.Shape) == 0 {
		return true
	}
	shape, ok := s.shape(x)
	return ok && len(shape) >= len(n.In(1).Const.Shape)
}
