package core

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Scalar is the meaning of a pointwise op on one element, in float64 for
// floats (rounded once to the element type), in int64 for integers (wrapped to
// the width), U for uint64 where that differs.
type Scalar struct {
	Arity int
	F1    func(a float64) float64
	F2    func(a, b float64) float64
	I1    func(a int64) int64
	I2    func(a, b int64) int64
	U2    func(a, b uint64) uint64
	// Bool: the result is a truth value (0 or 1), whatever the operands are.
	Bool bool
	// OnBool: boolean operands are allowed (computed by I1 or I2).
	OnBool bool
	// ULP is the error, in units in the last place of f32, that compiled code
	// may have against F; 0 demands the correctly rounded value.
	ULP float64
}

func unary(name, doc string, ulp float64, f func(float64) float64, i func(int64) int64) *Op {
	return pointwise(name, doc, &Scalar{Arity: 1, F1: f, I1: i, ULP: ulp})
}

func binary(name, doc string, f func(a, b float64) float64, i func(a, b int64) int64, u func(a, b uint64) uint64) *Op {
	return pointwise(name, doc, &Scalar{Arity: 2, F2: f, I2: i, U2: u})
}

func pointwise(name, doc string, s *Scalar) *Op {
	return &Op{Name: name, Doc: doc, Class: Pointwise, Scalar: s, Infer: s.infer, Eval: s.eval}
}

func compare(name, doc string, f func(a, b float64) bool, i func(a, b int64) bool, u func(a, b uint64) bool) *Op {
	s := &Scalar{Arity: 2, Bool: true, OnBool: true,
		F2: func(a, b float64) float64 { return b01f(f(a, b)) },
		I2: func(a, b int64) int64 { return int64(b01f(i(a, b))) },
		U2: func(a, b uint64) uint64 { return uint64(b01f(u(a, b))) },
	}
	return pointwise(name, doc, s)
}

func logic(name, doc string, i func(a, b int64) int64) *Op {
	return pointwise(name, doc, &Scalar{Arity: 2, I2: i, OnBool: true})
}

func b01f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// elementwiseOps: operands have one shape and one element type (where: a bool
// first).
var elementwiseOps = []*Op{
	unary("neg", "-x", 0, func(a float64) float64 { return -a }, func(a int64) int64 { return -a }),
	unary("abs", "|x|", 0, math.Abs, func(a int64) int64 { return max(a, -a) }),
	unary("sign", "-1, 0 or 1; NaN stays", 0, signF, func(a int64) int64 { return min(max(a, -1), 1) }),
	unary("exp", "e^x", 2, math.Exp, nil),
	unary("log", "natural logarithm", 2, math.Log, nil),
	unary("sqrt", "square root", 0, math.Sqrt, nil),
	unary("sin", "sine of radians", 4, math.Sin, nil),
	unary("cos", "cosine of radians", 4, math.Cos, nil),
	unary("tan", "tangent of radians", 4, math.Tan, nil),
	unary("asin", "arc sine", 4, math.Asin, nil),
	unary("acos", "arc cosine", 4, math.Acos, nil),
	unary("atan", "arc tangent", 4, math.Atan, nil),
	unary("sinh", "hyperbolic sine", 4, math.Sinh, nil),
	unary("cosh", "hyperbolic cosine", 4, math.Cosh, nil),
	unary("tanh", "hyperbolic tangent", 4, math.Tanh, nil),
	unary("asinh", "inverse of sinh", 4, math.Asinh, nil),
	unary("acosh", "inverse of cosh", 4, math.Acosh, nil),
	unary("atanh", "inverse of tanh", 4, math.Atanh, nil),
	unary("erf", "error function", 4, math.Erf, nil),
	unary("floor", "largest integer not above x", 0, math.Floor, ident),
	unary("ceil", "smallest integer not below x", 0, math.Ceil, ident),
	unary("round", "nearest integer, ties to even", 0, math.RoundToEven, ident),
	unary("trunc", "towards zero", 0, math.Trunc, ident),
	pointwise("isnan", "is NaN", &Scalar{Arity: 1, Bool: true, F1: func(a float64) float64 { return b01f(a != a) }}),
	pointwise("not", "of a bool, or of every bit of an integer", &Scalar{Arity: 1, OnBool: true, I1: func(a int64) int64 { return ^a }}),

	binary("add", "a+b", func(a, b float64) float64 { return a + b }, func(a, b int64) int64 { return a + b }, nil),
	binary("sub", "a-b", func(a, b float64) float64 { return a - b }, func(a, b int64) int64 { return a - b }, nil),
	binary("mul", "a·b", func(a, b float64) float64 { return a * b }, func(a, b int64) int64 { return a * b }, nil),
	binary("div", "a/b; integers towards zero, by 0 gives 0", func(a, b float64) float64 { return a / b }, divI, divU),
	binary("pow", "a to the power b", math.Pow, powI, powU),
	binary("mod", "a-b·floor(a/b): the sign of b; by 0 gives 0 for integers", modF, modI, remU),
	binary("fmod", "a-b·trunc(a/b): the sign of a; by 0 gives 0 for integers", math.Mod, remI, remU),
	binary("min", "the smaller; NaN if either is", minF, func(a, b int64) int64 { return min(a, b) }, func(a, b uint64) uint64 { return min(a, b) }),
	binary("max", "the larger; NaN if either is", maxF, func(a, b int64) int64 { return max(a, b) }, func(a, b uint64) uint64 { return max(a, b) }),
	binary("shl", "a shifted left by b bits; 0 if b is the width or more", nil, func(a, b int64) int64 { return a << uint64(b) }, nil),
	binary("shr", "a shifted right by b bits, arithmetic for signed types", nil, func(a, b int64) int64 { return a >> uint64(b) }, func(a, b uint64) uint64 { return a >> b }),
	logic("and", "of bools or of bits", func(a, b int64) int64 { return a & b }),
	logic("or", "of bools or of bits", func(a, b int64) int64 { return a | b }),
	logic("xor", "of bools or of bits", func(a, b int64) int64 { return a ^ b }),
	compare("eq", "a = b", func(a, b float64) bool { return a == b }, func(a, b int64) bool { return a == b }, func(a, b uint64) bool { return a == b }),
	compare("lt", "a < b", func(a, b float64) bool { return a < b }, func(a, b int64) bool { return a < b }, func(a, b uint64) bool { return a < b }),
	compare("le", "a ≤ b", func(a, b float64) bool { return a <= b }, func(a, b int64) bool { return a <= b }, func(a, b uint64) bool { return a <= b }),

	{Name: "where", Doc: "b where a is true, else c", Class: Pointwise, Scalar: &Scalar{Arity: 3}, Infer: inferWhere, Eval: evalWhere},
	{Name: "cast", Doc: "attribute to: the value in another type (to bool: x≠0; floats to integers towards zero; saturate=1 and round_mode for eight-bit floats as in ONNX Cast; keep=1: the rounding is what the model asks for, also where narrow floats are computed wide)", Class: Pointwise, Scalar: &Scalar{Arity: 1}, Infer: inferCast, Eval: evalCast},
	{Name: "bitcast", Doc: "attribute to: the same bits as a type of the same width", Class: Pointwise, Scalar: &Scalar{Arity: 1}, Infer: inferBitcast, Eval: evalBitcast},
}

func ident(a int64) int64 { return a }

func signF(a float64) float64 {
	switch {
	case a > 0:
		return 1
	case a < 0:
		return -1
	}
	return a
}

func divI(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func divU(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func remI(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return a % b
}

func remU(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return a % b
}

func modI(a, b int64) int64 {
	r := remI(a, b)
	if r != 0 && (r < 0) != (b < 0) {
		r += b
	}
	return r
}

func modF(a, b float64) float64 {
	r := math.Mod(a, b)
	if r != 0 && (r < 0) != (b < 0) {
		r += b
	}
	return r
}

func powU(a, b uint64) uint64 {
	r := uint64(1)
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			r *= a
		}
		a *= a
	}
	return r
}

func powI(a, b int64) int64 {
	if b < 0 {
		switch {
		case a == 1, a == -1 && b%2 == 0:
			return 1
		case a == -1:
			return -1
		}
		return 0
	}
	return int64(powU(uint64(a), uint64(b)))
}

func minF(a, b float64) float64 {
	if a != a || b != b {
		return math.NaN()
	}
	if b < a {
		return b
	}
	return a
}

func maxF(a, b float64) float64 {
	if a != a || b != b {
		return math.NaN()
	}
	if b > a {
		return b
	}
	return a
}

// Supports reports whether the op computes on an element type.
func (s *Scalar) Supports(d tensor.DType) bool {
	switch d.Kind() {
	case tensor.KindFloat:
		return s.F1 != nil || s.F2 != nil
	case tensor.KindInt, tensor.KindUint:
		return s.I1 != nil || s.I2 != nil
	case tensor.KindBool:
		return s.OnBool
	}
	return false
}

func sameShapes(n *ir.Node) error {
	for _, v := range n.Inputs[1:] {
		if !slices.Equal(shapeOf(v), shapeOf(n.Inputs[0])) {
			return fmt.Errorf("operand shapes %s and %s differ", tensor.ShapeString(shapeOf(n.Inputs[0])), tensor.ShapeString(shapeOf(v)))
		}
	}
	return nil
}

func (s *Scalar) infer(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != s.Arity {
		return nil, fmt.Errorf("%d operands, needs %d", len(n.Inputs), s.Arity)
	}
	if err := sameShapes(n); err != nil {
		return nil, err
	}
	d := n.Inputs[0].DType()
	for _, v := range n.Inputs {
		if v.DType() != d {
			return nil, fmt.Errorf("operand types %s and %s differ", d.ONNX(), v.DType().ONNX())
		}
	}
	if !s.Supports(d) {
		return nil, fmt.Errorf("not defined for %s", d.ONNX())
	}
	if s.Bool {
		d = tensor.Bool
	}
	return []ir.Type{ir.TensorType(d, shapeOf(n.Inputs[0])...)}, nil
}

func (s *Scalar) eval(_ *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	d := x.DType
	if s.Bool {
		d = tensor.Bool
	}
	out := tensor.New(d, x.Shape...)
	n := x.Len()
	if s.Arity == 1 {
		s.eval1(x, out, n)
	} else {
		s.eval2(x, in[1], out, n)
	}
	return []*tensor.Tensor{out}, nil
}

func (s *Scalar) eval1(x, out *tensor.Tensor, n int) {
	switch {
	case x.DType == tensor.F32 && !s.Bool:
		src, dst := tensor.As[float32](x), tensor.As[float32](out)
		for i, v := range src {
			dst[i] = float32(s.F1(float64(v)))
		}
	case x.DType.IsFloat():
		for i := range n {
			out.SetFloat(i, s.F1(x.Float(i)))
		}
	case x.DType == tensor.Bool:
		for i := range n {
			out.SetInt(i, s.I1(x.Int(i))&1)
		}
	default:
		for i := range n {
			out.SetInt(i, s.I1(x.Int(i)))
		}
	}
}

func (s *Scalar) eval2(x, y, out *tensor.Tensor, n int) {
	k := x.DType.Kind()
	switch {
	case x.DType == tensor.F32 && !s.Bool:
		a, b, dst := tensor.As[float32](x), tensor.As[float32](y), tensor.As[float32](out)
		for i, v := range a {
			dst[i] = float32(s.F2(float64(v), float64(b[i])))
		}
	case k == tensor.KindFloat:
		for i := range n {
			out.SetFloat(i, s.F2(x.Float(i), y.Float(i)))
		}
	case k == tensor.KindUint && s.U2 != nil:
		for i := range n {
			out.SetInt(i, int64(s.U2(x.Uint(i), y.Uint(i))))
		}
	default:
		for i := range n {
			out.SetInt(i, s.I2(x.Int(i), y.Int(i)))
		}
	}
}

func inferWhere(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != 3 || n.Inputs[0].DType() != tensor.Bool {
		return nil, fmt.Errorf("needs a bool condition and two values")
	}
	if n.Inputs[1].DType() != n.Inputs[2].DType() {
		return nil, fmt.Errorf("value types %s and %s differ", n.Inputs[1].DType().ONNX(), n.Inputs[2].DType().ONNX())
	}
	if err := sameShapes(n); err != nil {
		return nil, err
	}
	return []ir.Type{n.Inputs[1].Type}, nil
}

func evalWhere(_ *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	out := in[2].Clone()
	c := in[0].Bytes()
	if s := out.DType.Size(); s > 0 {
		dst, src := out.Bytes(), in[1].Bytes()
		for i, b := range c {
			if b != 0 {
				copy(dst[i*s:i*s+s], src[i*s:i*s+s])
			}
		}
		return []*tensor.Tensor{out}, nil
	}
	for i, b := range c {
		if b == 0 {
			continue
		}
		if out.DType == tensor.String {
			out.Strings()[i] = in[1].Strings()[i]
		} else {
			out.SetFloat(i, in[1].Float(i))
		}
	}
	return []*tensor.Tensor{out}, nil
}

func castTarget(n *ir.Node) (tensor.DType, error) {
	d, ok := tensor.ParseDType(n.Str("to", ""))
	if !ok {
		return 0, fmt.Errorf("unknown target type %q", n.Str("to", ""))
	}
	return d, nil
}

func inferCast(n *ir.Node) ([]ir.Type, error) {
	d, err := castTarget(n)
	if err != nil {
		return nil, err
	}
	from := n.Inputs[0].DType()
	if !(from.IsNumeric() || from == tensor.Bool) || !(d.IsNumeric() || d == tensor.Bool) {
		return nil, fmt.Errorf("no cast from %s to %s", from.ONNX(), d.ONNX())
	}
	return []ir.Type{ir.TensorType(d, shapeOf(n.Inputs[0])...)}, nil
}

func evalCast(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	d, err := castTarget(n)
	if err != nil {
		return nil, err
	}
	x := in[0]
	sat := n.Int("saturate", 1) == 1
	small := d.IsFloat() && d.Bits() <= 8
	switch {
	case d == tensor.F8E8M0:
		out := tensor.New(d, x.Shape...)
		for i := range x.Len() {
			out.Bytes()[i] = tensor.E8M0FromFloat(x.Float(i), sat, n.Str("round_mode", "up"))
		}
		return []*tensor.Tensor{out}, nil
	case small && !sat:
		out := tensor.New(d, x.Shape...)
		for i := range x.Len() {
			if d == tensor.F4E2M1 {
				out.SetFloat(i, x.Float(i))
			} else {
				out.Bytes()[i] = tensor.SmallFromFloat(d, x.Float(i), false)
			}
		}
		return []*tensor.Tensor{out}, nil
	}
	return []*tensor.Tensor{tensor.Convert(x, d)}, nil
}

func inferBitcast(n *ir.Node) ([]ir.Type, error) {
	d, err := castTarget(n)
	if err != nil {
		return nil, err
	}
	if d.Bits() != n.Inputs[0].DType().Bits() || d.Bits() == 0 {
		return nil, fmt.Errorf("%s and %s have different widths", n.Inputs[0].DType().ONNX(), d.ONNX())
	}
	return []ir.Type{ir.TensorType(d, shapeOf(n.Inputs[0])...)}, nil
}

func evalBitcast(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	d, err := castTarget(n)
	if err != nil {
		return nil, err
	}
	return []*tensor.Tensor{in[0].Retype(d)}, nil
}
