package onnx

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// rowCase is one node whose result was computed by hand: what ONNX's own cases
// leave out.
type rowCase struct {
	name   string
	domain string
	op     string
	opset  int
	attrs  []ir.Attr
	in     []*tensor.Tensor // nil: omitted
	want   []*tensor.Tensor // nil: not asked for
	bind   []int            // inputs that must be constant to compile
	noExp  bool             // the evaluator alone runs it
}

func attr(name string, val any) ir.Attr {
	switch v := val.(type) {
	case int:
		val = int64(v)
	case float64:
		val = float32(v)
	case []int:
		val = ir.Int64s(v)
	}
	return ir.Attr{Name: name, Val: val}
}

func f32(shape []int, v ...float32) *tensor.Tensor { return tensor.Of(v, shape...) }
func u8(shape []int, v ...uint8) *tensor.Tensor    { return tensor.Of(v, shape...) }
func i8(shape []int, v ...int8) *tensor.Tensor     { return tensor.Of(v, shape...) }
func i32(shape []int, v ...int32) *tensor.Tensor   { return tensor.Of(v, shape...) }
func i64(shape []int, v ...int64) *tensor.Tensor   { return tensor.Of(v, shape...) }

func (c rowCase) graph() *ir.Graph {
	g := &ir.Graph{Name: c.name}
	n := &ir.Node{Op: c.op, Domain: c.domain, Name: "n", Attrs: c.attrs}
	for i, t := range c.in {
		if t == nil {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		v := &ir.Value{Name: fmt.Sprintf("x%d", i), Type: ir.TensorType(t.DType, t.Shape...)}
		g.Inputs = append(g.Inputs, v)
		n.Inputs = append(n.Inputs, v)
	}
	for i, t := range c.want {
		if t == nil {
			n.Outputs = append(n.Outputs, nil)
			continue
		}
		v := &ir.Value{Name: fmt.Sprintf("y%d", i), Type: ir.TensorType(t.DType, t.Shape...), Def: n}
		g.Outputs = append(g.Outputs, v)
		n.Outputs = append(n.Outputs, v)
	}
	g.Nodes = []*ir.Node{n}
	return g
}

func (c rowCase) opsets() map[string]int {
	if c.domain != "" {
		return map[string]int{"": 21, c.domain: 1}
	}
	return map[string]int{"": c.opset}
}

func (c rowCase) eval() ([]*tensor.Tensor, error) {
	var in []*ir.Data
	for _, t := range c.in {
		if t != nil {
			in = append(in, ir.TensorData(t))
		}
	}
	ds, err := Eval(c.graph(), c.opsets(), in, nil)
	var out []*tensor.Tensor
	for _, d := range ds {
		out = append(out, d.Tensor)
	}
	return out, err
}

// expand builds the core graph with run-time inputs and evaluates that.
func (c rowCase) expand() ([]*tensor.Tensor, error) {
	bind := map[string]*tensor.Tensor{}
	for _, i := range c.bind {
		bind[fmt.Sprintf("x%d", i)] = c.in[i]
	}
	x, err := Expand(c.graph(), Options{Opsets: c.opsets(), Bind: bind})
	if err != nil {
		return nil, err
	}
	var in []*tensor.Tensor
	for i, t := range c.in {
		if t != nil && !slices.Contains(c.bind, i) {
			in = append(in, t)
		}
	}
	return core.EvalGraph(x.Graph, in)
}

func (c rowCase) check(t *testing.T, how string, run func() ([]*tensor.Tensor, error)) {
	t.Helper()
	got, err := run()
	if err != nil {
		t.Errorf("%s, %s: %v", c.name, how, err)
		return
	}
	k := 0
	for i, want := range c.want {
		if want == nil {
			continue
		}
		if y := got[k]; y.DType != want.DType || !slices.Equal(y.Shape, want.Shape) {
			t.Errorf("%s, %s: output %d is %s, want %s", c.name, how, i, y, want)
		} else if !near(y, want) {
			t.Errorf("%s, %s: output %d is %v, want %v", c.name, how, i, y.Floats(), want.Floats())
		}
		k++
	}
}

// near allows floats an error of 2^-21 of their size: a few roundings of f32.
func near(y, want *tensor.Tensor) bool {
	for i := range want.Len() {
		g, w := y.Float(i), want.Float(i)
		if g == w || g != g && w != w {
			continue
		}
		if !want.DType.IsFloat() || !(math.Abs(g-w) <= 0x1p-21*max(math.Abs(w), 1)) {
			return false
		}
	}
	return true
}

func runRows(t *testing.T, cases []rowCase) {
	t.Helper()
	for _, c := range cases {
		c.check(t, "evaluated", c.eval)
		if !c.noExp {
			c.check(t, "expanded", c.expand)
		}
	}
}

// refused checks that a node is refused as unsupported, not computed.
func refused(t *testing.T, cases []rowCase) {
	t.Helper()
	for _, c := range cases {
		if _, err := c.expand(); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: got error %v, want it refused as unsupported", c.name, err)
		}
	}
}
