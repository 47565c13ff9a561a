package onnxgo

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	onnxgo "github.com/owulveryck/onnx-go"
	"github.com/owulveryck/onnx-go/backend/testbackend"
	_ "github.com/owulveryck/onnx-go/backend/testbackend/onnx"
	gtensor "gorgonia.org/tensor"
)

// evaluate is the reference evaluator as a compiler.
func evaluate(m *onnxfile.Model) (Program, error) {
	opsets := map[string]int{"": m.Opset("")}
	return func(in []*tensor.Tensor) ([]*tensor.Tensor, error) {
		data := make([]*ir.Data, len(in))
		for i, t := range in {
			data[i] = ir.TensorData(t)
		}
		res, err := onnx.Eval(m.Graph, opsets, data, nil)
		if err != nil {
			return nil, err
		}
		out := make([]*tensor.Tensor, len(res))
		for i, d := range res {
			if d.Form != ir.FormTensor {
				return nil, fault.New(fault.Unsupported, "an output is a %s", d.Type())
			}
			out[i] = d.Tensor
		}
		return out, nil
	}, nil
}

// onnx-go's own cases. Each is run and compared as ONNX's own suite compares
// (rtol 1e-3, atol 1e-7; equal for other types), and then, where that can hold,
// by onnx-go's test function unchanged. That one wants 1e-6 absolutely, which
// is less than a float32 ulp for sums beyond 16, and the recorded shape, which
// for tensors of one element is not the model's.
func TestOnnxGoCases(t *testing.T) {
	var cases []*testbackend.TestCase
	for _, c := range testbackend.GetAllRegisteredTests() {
		cases = append(cases, c())
	}
	slices.SortFunc(cases, func(a, b *testbackend.TestCase) int { return strings.Compare(a.Title, b.Title) })
	if len(cases) != 348 {
		t.Fatalf("onnx-go v0.5.0 has 348 cases, found %d", len(cases))
	}
	passed, verbatim := 0, 0
	for _, c := range cases {
		b, err := newCaseBackend(c)
		if err != nil {
			t.Logf("%s: refused: %v", c.Title, err)
			continue
		}
		close, err := runCase(c, b)
		if err != nil {
			if _, ok := err.(*onnxgo.ErrNotImplemented); ok || fault.Is(err, fault.Unsupported) {
				t.Logf("%s: refused: %v", c.Title, err)
			} else {
				t.Errorf("%s: %v", c.Title, err)
			}
			continue
		}
		passed++
		if !close {
			t.Logf("%s: passes, but not by onnx-go's comparison", c.Title)
		} else {
			verbatim++
			fresh, err := newCaseBackend(c)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(c.Title, c.RunTest(fresh, false))
		}
	}
	t.Logf("%d of %d pass, %d of them by onnx-go's own comparison", passed, len(cases), verbatim)
	if passed < 347 { // Scan's body is what onnx-go itself cannot hand over
		t.Errorf("%d cases pass, 347 did", passed)
	}
}

func newCaseBackend(c *testbackend.TestCase) (*Backend, error) {
	m, err := onnxfile.ReadBytes(c.ModelB, onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	return NewBackend(int64(m.Opset("")), evaluate), nil
}

// runCase does what testbackend does. close is whether its comparison, too,
// would be content.
func runCase(c *testbackend.TestCase, b *Backend) (close bool, err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("panic: %v", e)
		}
	}()
	m := onnxgo.NewModel(b)
	if err := m.UnmarshalBinary(c.ModelB); err != nil {
		return false, err
	}
	for i, t := range c.Input {
		if err := m.SetInput(i, t); err != nil {
			return false, err
		}
	}
	if err := b.Run(); err != nil {
		return false, err
	}
	out, err := m.GetOutputTensors()
	if err != nil {
		return false, err
	}
	if len(out) != len(c.ExpectedOutput) {
		return false, fmt.Errorf("%d outputs, expected %d", len(out), len(c.ExpectedOutput))
	}
	close = true
	for i := range out {
		ok, err := compare(out[i], c.ExpectedOutput[i])
		if err != nil {
			return false, fmt.Errorf("output %d: %w", i, err)
		}
		close = close && ok
	}
	return close, nil
}

func compare(got, want gtensor.Tensor) (close bool, err error) {
	a, err := fromGorgonia(got)
	if err != nil {
		return false, err
	}
	b, err := fromGorgonia(want)
	if err != nil {
		return false, err
	}
	if b.DType == tensor.F32 && len(b.Shape) == 1 && b.Shape[0] == 1 && a.Len() == 1 && a.DType != tensor.F32 {
		// onnx-go's generator wrote every tensor of one element so.
		return false, sameNumber(a.Float(0), b.Float(0))
	}
	if !slices.Equal(a.Shape, b.Shape) || a.DType != b.DType {
		return false, fmt.Errorf("got %s, expected %s", a, b)
	}
	close = a.DType.IsNumeric() && len(a.Shape) > 0
	for i := range a.Len() {
		x, y := a.Float(i), b.Float(i)
		if x != y && !a.DType.IsFloat() {
			return false, fmt.Errorf("element %d is %v, expected %v", i, x, y)
		}
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			close = close && x == y && !math.IsInf(x, 0)
			continue
		}
		d := math.Abs(x - y)
		if !(d <= 1e-7+1e-3*math.Abs(y)) {
			return false, fmt.Errorf("element %d is %v, expected %v", i, x, y)
		}
		close = close && d <= 1e-6
	}
	return close, nil
}

func sameNumber(got, want float64) error {
	if got != want {
		return fmt.Errorf("got %v, expected %v", got, want)
	}
	return nil
}

// A program's use of the backend: an input that value_info describes a second
// time, a value read twice, another batch size on the second run.
func TestBackendRunsAgain(t *testing.T) {
	x := func(name string, dims ...int) *ir.Value {
		return &ir.Value{Name: name, Type: ir.TensorType(tensor.F32, dims...)}
	}
	in, w := x("x", 2), ir.NewConst("w", tensor.Of([]float32{10}, 1))
	sum := &ir.Node{Op: "Add", Inputs: []*ir.Value{in, in}}
	s := x("s", 2)
	sum.Outputs, s.Def = []*ir.Value{s}, sum
	sub := &ir.Node{Op: "Sub", Inputs: []*ir.Value{w, s}}
	y := x("y", 2)
	sub.Outputs, y.Def = []*ir.Value{y}, sub
	file := onnxfile.New(&ir.Graph{
		Name: "g", Inputs: []*ir.Value{in}, Inits: []*ir.Value{w}, Nodes: []*ir.Node{sum, sub},
		Outputs: []*ir.Value{y}, Infos: []*ir.Value{in, s, y},
	}, 9)
	file.IRVersion = 4
	data, err := file.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	compiled := 0
	b := NewBackend(9, func(m *onnxfile.Model) (Program, error) { compiled++; return evaluate(m) })
	m := onnxgo.NewModel(b)
	if err := m.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	for _, v := range [][]float32{{1, 2}, {3, 4}, {5, 6, 7}} {
		if err := m.SetInput(0, gtensor.New(gtensor.WithShape(len(v)), gtensor.WithBacking(v))); err != nil {
			t.Fatal(err)
		}
		if err := b.Run(); err != nil {
			t.Fatal(err)
		}
		out, err := m.GetOutputTensors()
		if err != nil {
			t.Fatal(err)
		}
		want := []float32{}
		for _, a := range v {
			want = append(want, 10-(a+a))
		}
		if got, ok := out[0].Data().([]float32); !ok || !slices.Equal(got, want) {
			t.Errorf("x = %v: got %v, want %v", v, out[0].Data(), want)
		}
	}
	if compiled != 2 {
		t.Errorf("compiled %d times for two shapes", compiled)
	}
}
