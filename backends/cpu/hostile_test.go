package cpu

import (
	"context"
	"math"
	"strconv"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func parsed(t *testing.T, text string) *ir.Graph {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return g
}

func expanded(t *testing.T, g *ir.Graph) *ir.Graph {
	t.Helper()
	x, err := onnx.Expand(g, onnx.Options{Opsets: map[string]int{"": 18}})
	if err != nil {
		t.Fatal(err)
	}
	return x.Graph
}

// counted fills inputs with 1, 2, 3, …
func counted(g *ir.Graph) []*tensor.Tensor {
	var in []*tensor.Tensor
	for _, v := range g.Inputs {
		x := tensor.New(v.DType(), v.Static()...)
		for i := range x.Len() {
			x.SetFloat(i, float64(i+1))
		}
		in = append(in, x)
	}
	return in
}

// TestEmptyTensors compiles and runs ops on tensors without elements: the
// results have the shapes and the values that the reference evaluator gives.
func TestEmptyTensors(t *testing.T) {
	cache := t.TempDir()
	for _, c := range []struct{ name, body, want string }{
		{"neg", "input %x: f32[0x3]\n %y: f32[0x3] = Neg(%x)", "[0x3]"},
		{"add broadcast", "input %x: f32[0x3]\n input %b: f32[3]\n %y: f32[0x3] = Add(%x, %b)", "[0x3]"},
		{"add broadcast of one", "input %x: f32[0]\n input %b: f32[1]\n %y: f32[0] = Add(%x, %b)", "[0]"},
		{"matmul no rows", "input %x: f32[0x4]\n input %b: f32[4x3]\n %y: f32[0x3] = MatMul(%x, %b)", "[0x3]"},
		{"matmul no columns", "input %x: f32[2x4]\n input %b: f32[4x0]\n %y: f32[2x0] = MatMul(%x, %b)", "[2x0]"},
		{"matmul nothing to sum", "input %x: f32[2x0]\n input %b: f32[0x3]\n %y: f32[2x3] = MatMul(%x, %b)", "[2x3] 0 0 0 0 0 0"},
		{"batch of none", "input %x: f32[0x2x4]\n input %b: f32[0x4x3]\n %y: f32[0x2x3] = MatMul(%x, %b)", "[0x2x3]"},
		{"sum of none", "input %x: f32[2x0]\n init %a = i64[1]{1}\n %y: f32[2] = ReduceSum(%x, %a) {keepdims = 0}", "[2] 0 0"},
		{"product of none", "input %x: f32[2x0]\n init %a = i64[1]{1}\n %y: f32[2] = ReduceProd(%x, %a) {keepdims = 0}", "[2] 1 1"},
		{"maximum of none", "input %x: f32[2x0]\n init %a = i64[1]{1}\n %y: f32[2] = ReduceMax(%x, %a) {keepdims = 0}", "[2] -Inf -Inf"},
		{"sum over rows of no columns", "input %x: f32[2x0]\n init %a = i64[1]{0}\n %y: f32[0] = ReduceSum(%x, %a) {keepdims = 0}", "[0]"},
		{"softmax", "input %x: f32[2x0]\n %y: f32[2x0] = Softmax(%x)", "[2x0]"},
		{"softmax of no rows", "input %x: f32[0x5]\n %y: f32[0x5] = Softmax(%x)", "[0x5]"},
		{"concat", "input %x: f32[0x2]\n input %z: f32[1x2]\n %y: f32[1x2] = Concat(%x, %z) {axis = 0}", "[1x2] 1 2"},
		{"concat of none", "input %x: f32[0x2]\n input %z: f32[0x2]\n %y: f32[0x2] = Concat(%x, %z) {axis = 0}", "[0x2]"},
		{"transpose", "input %x: f32[0x3]\n %y: f32[3x0] = Transpose(%x)", "[3x0]"},
		{"reshape", "input %x: f32[0x3]\n init %s = i64[2]{5, 0}\n %y: f32[5x0] = Reshape(%x, %s) {allowzero = 1}", "[5x0]"},
		{"slice to nothing", "input %x: f32[4]\n init %b = i64[1]{2}\n init %e = i64[1]{2}\n %y: f32[0] = Slice(%x, %b, %e)", "[0]"},
		{"gather nothing", "input %x: f32[4x2]\n init %i = i64[0]{}\n %y: f32[0x2] = Gather(%x, %i) {axis = 0}", "[0x2]"},
		{"gather at run time", "input %x: f32[4x2]\n input %i: i64[0]\n %y: f32[0x2] = Gather(%x, %i) {axis = 0}", "[0x2]"},
		{"pad from nothing", "input %x: f32[0]\n init %p = i64[2]{1, 1}\n %y: f32[2] = Pad(%x, %p)", "[2] 0 0"},
		{"convolution of no images", "input %x: f32[0x2x4x4]\n init %w = f32[1x2x1x1]{1, 2}\n %y: f32[0x1x4x4] = Conv(%x, %w)", "[0x1x4x4]"},
		{"convolution over no channels", "input %x: f32[1x0x2x2]\n init %w = f32[1x0x1x1]{}\n %y: f32[1x1x2x2] = Conv(%x, %w)", "[1x1x2x2] 0 0 0 0"},
		{"pool of no images", "input %x: f32[0x2x4x4]\n %y: f32[0x2x2x2] = MaxPool(%x) {kernel_shape = [2, 2], strides = [2, 2]}", "[0x2x2x2]"},
		{"global pool of no channels", "input %x: f32[1x0x4x4]\n %y: f32[1x0x1x1] = GlobalAveragePool(%x)", "[1x0x1x1]"},
		{"layer norm of no rows", "input %x: f32[0x4]\n init %s = f32[4]{1, 1, 1, 1}\n %y: f32[0x4] = LayerNormalization(%x, %s)", "[0x4]"},
		{"cumsum", "input %x: f32[0x4]\n init %a = i64[]{0}\n %y: f32[0x4] = CumSum(%x, %a)", "[0x4]"},
		{"tile by none", "input %x: f32[2x2]\n init %r = i64[2]{0, 1}\n %y: f32[0x2] = Tile(%x, %r)", "[0x2]"},
		{"expand to none", "input %x: f32[1x2]\n init %s = i64[2]{0, 2}\n %y: f32[0x2] = Expand(%x, %s)", "[0x2]"},
		{"top of none", "input %x: f32[2x4]\n init %k = i64[1]{0}\n %y: f32[2x0], %z: i64[2x0] = TopK(%x, %k)", "[2x0]"},
		{"where", "input %x: f32[0]\n %c: bool[0] = Greater(%x, %x)\n %y: f32[0] = Where(%c, %x, %x)", "[0]"},
		{"cast", "input %x: f32[0]\n %y: i64[0] = Cast(%x) {to = 7}", "[0]"},
		{"split into none and all", "input %x: f32[2]\n init %s = i64[2]{0, 2}\n %y: f32[0], %z: f32[2] = Split(%x, %s)", "[0]"},
		{"identity", "input %x: f32[0]\n %y: f32[0] = Identity(%x)", "[0]"},
		{"scalar", "input %x: f32[]\n %y: f32[] = Neg(%x)", "[] -1"},
		{"scalar of a sum", "input %x: f32[3]\n %y: f32[] = ReduceSum(%x) {keepdims = 0}", "[] 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := expanded(t, parsed(t, "onnx graph \"g\" {\n "+c.body+"\n output %y\n}"))
			for _, threads := range []int{1, 2} {
				out, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache, Threads: threads}, g, counted(g))
				if err != nil {
					t.Fatal(err)
				}
				if got := spelled(out[0]); got != c.want {
					t.Errorf("%d threads: got %s, want %s", threads, got, c.want)
				}
			}
		})
	}
}

func spelled(x *tensor.Tensor) string {
	s := tensor.ShapeString(x.Shape)
	for i := range x.Len() {
		s += " " + number(x.Float(i))
	}
	return s
}

func number(v float64) string {
	switch {
	case math.IsInf(v, -1):
		return "-Inf"
	case v == 0:
		return "0" // of either sign
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// TestOddGraphs holds what no op decides: outputs that are inputs, constants
// or each other, inputs that nobody reads, values that many read.
func TestOddGraphs(t *testing.T) {
	cache := t.TempDir()
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no nodes", "input %x: f32[2]\n output %x", []string{"[2] 1 2"}},
		{"two outputs of one input", "input %x: f32[2]\n output %x\n output %x", []string{"[2] 1 2", "[2] 1 2"}},
		{"an initializer", "input %x: f32[2]\n init %w = f32[2]{7, 8}\n output %w", []string{"[2] 7 8"}},
		{"only an initializer", "init %w = f32[2]{7, 8}\n output %w", []string{"[2] 7 8"}},
		{"a value twice", "input %x: f32[2]\n %y: f32[2] = Neg(%x)\n output %y\n output %y", []string{"[2] -1 -2", "[2] -1 -2"}},
		{"unused input", "input %u: f32[3]\n input %x: f32[2]\n %y: f32[2] = Neg(%x)\n output %y", []string{"[2] -1 -2"}},
		{"an output that is read on", "input %x: f32[2]\n %y: f32[2] = Neg(%x)\n %z: f32[2] = Mul(%y, %y)\n output %z\n output %y", []string{"[2] 1 4", "[2] -1 -2"}},
		{"names that lathe would give", "input %x: f32[2]\n %\"y·in\": f32[2] = Neg(%x)\n %v1: f32[2] = Mul(%\"y·in\", %x)\n output %v1\n output %x\n output %\"y·in\"\n output %v1", []string{"[2] -1 -4", "[2] 1 2", "[2] -1 -2", "[2] -1 -4"}},
		{"a view of an input", "input %x: f32[1x2]\n init %s = i64[1]{2}\n %y: f32[2] = Reshape(%x, %s)\n output %y\n output %x", []string{"[2] 1 2", "[1x2] 1 2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := expanded(t, parsed(t, "onnx graph \"g\" {\n "+c.text+"\n}"))
			out, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache, Threads: 1}, g, counted(g))
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range out {
				if got := spelled(o); got != c.want[i] {
					t.Errorf("output %d: got %s, want %s", i, got, c.want[i])
				}
			}
		})
	}
}
