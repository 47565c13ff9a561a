package conformance

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
)

// Tolerance says when an output is right: |got-want| ≤ ATol + RTol·|want| for
// floats; integers, strings and bools are exact. NaN equals NaN, an infinity
// equals itself.
type Tolerance struct {
	RTol float64 `json:"rtol"`
	ATol float64 `json:"atol"`
	// Lenient also accepts an absolute error of 1e-5, 8-bit integers that are
	// off by one where the model quantizes, one unit in the last place of
	// float16 and bfloat16, and an error of 2e-6 of the tensor's largest
	// magnitude (bins of a transform that cancel to almost nothing).
	Lenient bool `json:"lenient"`
	// Bound is the relative error of a layer, as the root of the mean square, that
	// the arithmetic which runs states. ONNX's runner is made for cases of one op; in
	// a model of several the errors of layers add up as squares, so that a float may
	// be off by Bound·√nodes of its tensor's largest magnitude, and one that is
	// dequantized at the end by its quantization step, or by the spread of its
	// reference where that is recorded: a value between two steps falls to either
	// side. 0: neither.
	Bound float64 `json:"bound,omitempty"`
	// Step is an absolute slack that Lenient adds to floats; a case whose
	// outputs are dequantized adds their quantization step by itself, and a
	// quantized model the spread of its reference where that is recorded.
	Step float64 `json:"step,omitempty"`

	norm, steps float64 // of one model: what Bound comes to
}

// Standard is the tolerance of ONNX's own runner.
var Standard = Tolerance{RTol: 1e-3, ATol: 1e-7}

// For gives the tolerance of a model: of a case of one op it is t.
func (t Tolerance) For(g *ir.Graph) Tolerance {
	nodes := 0
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		if n.Op != "Constant" {
			nodes++
		}
		return nil
	})
	return t.ofNodes(nodes, OutputStep(g))
}

// OfLayers gives the tolerance of a network of which only the number of layers
// is known.
func (t Tolerance) OfLayers(n int) Tolerance { return t.ofNodes(n, 0) }

func (t Tolerance) ofNodes(n int, step float64) Tolerance {
	if t.Bound > 0 && n > 1 {
		t.norm, t.steps = t.Bound*math.Sqrt(float64(n)), step
	}
	return t
}

// Compare says what differs first between the outputs of a run and the
// recorded ones; nil if nothing. quantized allows the off-by-one of Lenient.
func Compare(got, want []*ir.Data, tol Tolerance, quantized bool) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d outputs, recorded are %d", len(got), len(want))
	}
	for i := range want {
		if err := compareData(got[i], want[i], tol, quantized); err != nil {
			return fmt.Errorf("output %d: %w", i, err)
		}
	}
	return nil
}

func compareData(got, want *ir.Data, tol Tolerance, quantized bool) error {
	// A recorded tensor stands for an optional that holds it: files do not
	// always tell them apart.
	if want == nil || got == nil || want.Form != got.Form {
		got, want = got.Unwrap(), want.Unwrap()
	}
	switch {
	case got == nil && want == nil:
		return nil
	case got == nil || want == nil:
		return fmt.Errorf("got %s, recorded is %s", got, want)
	case got.Form != want.Form:
		return fmt.Errorf("got %s, recorded is %s", got, want)
	case got.Form == ir.FormTensor:
		return compareTensor(got.Tensor, want.Tensor, tol, quantized)
	case got.Form == ir.FormOptional:
		if (got.Some == nil) != (want.Some == nil) {
			return fmt.Errorf("got %s, recorded is %s", got, want)
		}
		if got.Some == nil {
			return nil
		}
		return compareData(got.Some, want.Some, tol, quantized)
	}
	if len(got.Items) != len(want.Items) {
		return fmt.Errorf("%d elements, recorded are %d", len(got.Items), len(want.Items))
	}
	for i := range want.Items {
		if err := compareData(got.Items[i], want.Items[i], tol, quantized); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	if want.Keys != nil {
		if got.Keys == nil || !tensor.Equal(got.Keys, want.Keys) {
			return fmt.Errorf("keys differ")
		}
	}
	return nil
}

func compareTensor(got, want *tensor.Tensor, tol Tolerance, quantized bool) error {
	if got == nil || want == nil {
		if got == want {
			return nil
		}
		return fmt.Errorf("one of them is no tensor")
	}
	if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("got %s, recorded is %s", got, want)
	}
	switch {
	case want.DType == tensor.String:
		for i, w := range want.Strings() {
			if got.Strings()[i] != w {
				return fmt.Errorf("element %d is %q, recorded is %q", i, got.Strings()[i], w)
			}
		}
	case want.DType.IsFloat():
		return compareFloats(got, want, tol)
	case tol.Lenient && quantized && (want.DType == tensor.I8 || want.DType == tensor.U8):
		for i := range want.Len() {
			if d := got.Int(i) - want.Int(i); d < -1 || d > 1 {
				return fmt.Errorf("element %d is %d, recorded is %d", i, got.Int(i), want.Int(i))
			}
		}
	case want.DType.Kind() == tensor.KindComplex:
		if !tensor.Equal(got, want) {
			return fmt.Errorf("complex values differ")
		}
	default:
		for i := range want.Len() {
			if got.Int(i) != want.Int(i) {
				return fmt.Errorf("element %d is %d, recorded is %d", i, got.Int(i), want.Int(i))
			}
		}
	}
	return nil
}

func compareFloats(got, want *tensor.Tensor, tol Tolerance) error {
	norm := 0.0
	for i := range want.Len() {
		if w := math.Abs(want.Float(i)); !math.IsInf(w, 0) && w > norm {
			norm = w
		}
	}
	atol := max(tol.ATol, tol.norm*norm, tol.steps)
	if tol.Lenient {
		atol = max(atol, 1e-5, 2e-6*norm, tol.Step)
	}
	worst, at, bad := 0.0, -1, 0
	for i := range want.Len() {
		g, w := got.Float(i), want.Float(i)
		if g == w || g != g && w != w {
			continue
		}
		e := math.Abs(g-w) / (atol + tol.RTol*math.Abs(w))
		if e <= 1 || tol.Lenient && adjacent(want.DType, g, w) {
			continue
		}
		bad++
		if at < 0 || e > worst || e != e {
			worst, at = e, i
		}
	}
	if at < 0 {
		return nil
	}
	return fmt.Errorf("element %d of %s is %v, recorded is %v (%d of %d elements differ)", at, want, got.Float(at), want.Float(at), bad, want.Len())
}

// within reports whether float tensors deviate by no more than an error, as the
// root of the mean square; all others must be equal.
func within(got, want []*ir.Data, bound float64) bool {
	for i := range want {
		g, w := got[i].Unwrap(), want[i].Unwrap()
		if g == nil || w == nil || g.Tensor == nil || w.Tensor == nil || g.Tensor.DType != w.Tensor.DType || !slices.Equal(g.Tensor.Shape, w.Tensor.Shape) {
			return false
		}
		if !w.Tensor.DType.IsFloat() {
			if !tensor.Equal(g.Tensor, w.Tensor) {
				return false
			}
		} else if !wide.Of(g.Tensor, w.Tensor).Within(bound) {
			return false
		}
	}
	return len(got) == len(want)
}

// adjacent reports neighbouring values of a 16-bit float type.
func adjacent(d tensor.DType, g, w float64) bool {
	bits, least := 0, 0
	switch d {
	case tensor.F16:
		bits, least = 11, -14
	case tensor.BF16:
		bits, least = 8, -126
	default:
		return false
	}
	if math.IsInf(g, 0) || math.IsInf(w, 0) {
		return false
	}
	_, e := math.Frexp(max(math.Abs(g), math.Abs(w)))
	return math.Abs(g-w) <= math.Ldexp(1, max(e-1, least)-bits+1)
}
