package onnx_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// sharedModels is the folder of recorded models, or a skipped test.
func sharedModels(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("LATHE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "models")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("shared models are absent: %v (set LATHE_SHARED)", err)
	}
	return dir
}

// TestIntegerQDQ runs quantised models in integers: every convolution and
// matrix product is rewritten, none is left in floats, and the outputs are
// those that ONNX Runtime gave for the model as it was, within one
// quantisation step.
func TestIntegerQDQ(t *testing.T) {
	root := sharedModels(t)
	for name, contractions := range map[string]int{ // Conv and Gemm nodes in the file
		"mlperf-kws-dscnn-int8-qdq":      10,
		"mlperf-resnet8-int8-qdq":        10,
		"mlperf-ad-autoencoder-int8-qdq": 10,
		"mobilenetv1-0.25-128-uint8-qdq": 28,
	} {
		cases, err := conformance.Discover(filepath.Join(root, name))
		if err != nil || len(cases) != 1 {
			t.Fatalf("%s: %d cases, %v", name, len(cases), err)
		}
		run := func(ctx context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
			if n := onnx.IntegerQDQ(m.Graph); n != contractions {
				t.Errorf("%s: %d nodes are rewritten, want %d", name, n, contractions)
			}
			x, _, err := conformance.ExpandFor(m, s)
			if err != nil {
				return conformance.Outputs{}, err
			}
			for _, n := range x.Graph.Nodes {
				if (n.Op == "conv" || n.Op == "dot") && (n.Inputs[0].DType().Bits() != 8 || n.Outputs[0].DType() != tensor.I32) {
					t.Errorf("%s: %s is a contraction of %s", name, n.Origin, n.Inputs[0].Type)
				}
			}
			return conformance.Expand(ctx, m, s)
		}
		tol := conformance.Standard
		tol.Lenient = true
		if r := conformance.One(context.Background(), cases[0], run, conformance.Options{Tolerance: tol, Timeout: 1 << 40}); r.Status != conformance.Pass {
			t.Errorf("%s: %s %s", name, r.Status, r.Reason)
		}
	}
}

// TestIntegerQDQLeavesFloats keeps a product whose left operand has a scale per
// row: no single factor takes it out of the sum.
func TestIntegerQDQLeavesFloats(t *testing.T) {
	g := &ir.Graph{}
	constant := func(name string, x *tensor.Tensor) *ir.Value {
		v := ir.NewConst(name, x)
		g.Inits = append(g.Inits, v)
		return v
	}
	node := func(op string, axis int64, in ...*ir.Value) *ir.Value {
		n := &ir.Node{Op: op, Name: op, Inputs: in}
		n.SetAttr("axis", axis)
		n.Outputs = []*ir.Value{{Name: op + in[0].Name, Def: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	x := &ir.Value{Name: "x", Type: ir.TensorType(tensor.U8, 2, 2)}
	g.Inputs = []*ir.Value{x}
	a := node("DequantizeLinear", 0, x, constant("sx", tensor.Of([]float32{1, 2}, 2)))
	b := node("DequantizeLinear", 1, constant("w", tensor.Of([]int8{1, 2, 3, 4}, 2, 2)), constant("sw", tensor.Scalar[float32](1)))
	g.Outputs = []*ir.Value{node("MatMul", 0, a, b)}
	if n := onnx.IntegerQDQ(g); n != 0 {
		t.Errorf("%d nodes are rewritten, want none", n)
	}
}
