package onnx

import (
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// body builds a subgraph: ops on names; names that no op makes are inputs.
type bodyNode struct {
	op  string
	in  []string
	out string
}

func subgraph(inputs, outputs []string, nodes ...bodyNode) *ir.Graph {
	g := &ir.Graph{Name: "body"}
	vals := map[string]*ir.Value{}
	for _, n := range inputs {
		vals[n] = &ir.Value{Name: n}
		g.Inputs = append(g.Inputs, vals[n])
	}
	for _, b := range nodes {
		n := &ir.Node{Op: b.op}
		for _, i := range b.in {
			n.Inputs = append(n.Inputs, vals[i])
		}
		vals[b.out] = &ir.Value{Name: b.out, Def: n}
		n.Outputs = []*ir.Value{vals[b.out]}
		g.Nodes = append(g.Nodes, n)
	}
	for _, o := range outputs {
		g.Outputs = append(g.Outputs, vals[o])
	}
	return g
}

func TestScanRows(t *testing.T) {
	// s' = s + x, y = s'.
	sum := subgraph([]string{"s", "x"}, []string{"t", "y"}, bodyNode{"Add", []string{"s", "x"}, "t"}, bodyNode{"Identity", []string{"t"}, "y"})
	x := f32([]int{2, 3, 1}, 1, 2, 4, 10, 20, 40)
	s0 := f32([]int{2, 1}, 0, 100)
	scan8 := func(name string, lens *tensor.Tensor, end, ys *tensor.Tensor, as ...any) rowCase {
		c := rowCase{name: name, op: "Scan", opset: 8, attrs: append(attrs(as...), attr("body", sum), attr("num_scan_inputs", 1)), in: []*tensor.Tensor{lens, s0, x}, want: []*tensor.Tensor{end, ys}}
		if lens != nil {
			c.bind = []int{0}
		}
		return c
	}
	runRows(t, []rowCase{
		scan8("scan 8", nil, f32([]int{2, 1}, 7, 170), f32([]int{2, 3, 1}, 1, 3, 7, 110, 130, 170)),
		scan8("scan 8, lengths", i64([]int{2}, 3, 1), f32([]int{2, 1}, 7, 110), f32([]int{2, 3, 1}, 1, 3, 7, 110, 0, 0)),
		scan8("scan 8, backwards", nil, f32([]int{2, 1}, 7, 170), f32([]int{2, 3, 1}, 4, 6, 7, 140, 160, 170), "directions", []int{1}),
		// Columns from the right, results side by side from the right.
		{name: "scan 9, axes and directions", op: "Scan", opset: 9, attrs: append(attrs("num_scan_inputs", 1, "scan_input_axes", []int{1}, "scan_input_directions", []int{1}, "scan_output_axes", []int{-1}, "scan_output_directions", []int{1}), attr("body", sum)),
			in: []*tensor.Tensor{f32([]int{2}, 0, 0), f32([]int{2, 2}, 1, 2, 3, 4)}, want: []*tensor.Tensor{f32([]int{2}, 3, 7), f32([]int{2, 2}, 3, 2, 7, 4)}},
	})
}

func TestLoopRows(t *testing.T) {
	// v' = v + v; the condition is passed on; scan output v'.
	double := subgraph([]string{"i", "c", "v"}, []string{"c2", "w", "y"},
		bodyNode{"Identity", []string{"c"}, "c2"}, bodyNode{"Add", []string{"v", "v"}, "w"}, bodyNode{"Identity", []string{"w"}, "y"})
	double.Outputs[2].Type = ir.TensorType(tensor.F32, 1)
	v := f32([]int{1}, 1)
	yes, no := tensor.Scalar(true), tensor.Scalar(false)
	loop := func(name string, trips, cond *tensor.Tensor, end, ys *tensor.Tensor) rowCase {
		c := rowCase{name: name, op: "Loop", opset: 13, attrs: []ir.Attr{attr("body", double)}, in: []*tensor.Tensor{trips, cond, v}, want: []*tensor.Tensor{end, ys}}
		for i, b := range c.in[:2] {
			if b != nil {
				c.bind = append(c.bind, i)
			}
		}
		return c
	}
	runRows(t, []rowCase{
		loop("three times", i64(nil, 3), yes, f32([]int{1}, 8), f32([]int{3, 1}, 2, 4, 8)),
		loop("no condition", i64([]int{1}, 2), nil, f32([]int{1}, 4), f32([]int{2, 1}, 2, 4)),
		loop("false at once", i64(nil, 3), no, v, f32([]int{0, 1})),
		loop("no trips", i64(nil, -1), yes, v, f32([]int{0, 1})),
	})
	endless := loop("endless", nil, yes, v, v)
	never := loop("without an end", nil, nil, v, v)
	dynamic := loop("trips of data", i64(nil, 3), yes, v, v)
	dynamic.bind = nil
	refused(t, []rowCase{endless, never, dynamic})
}

func TestIfRows(t *testing.T) {
	// Both branches read the outer value x, which is the node's condition cast
	// to a number by neither: they make their own constants.
	branch := func(v *tensor.Tensor) *ir.Graph {
		c := ir.NewConst("k", v)
		return &ir.Graph{Name: "branch", Inits: []*ir.Value{c}, Outputs: []*ir.Value{c}}
	}
	cond := func(yes bool, a, b, want *tensor.Tensor) rowCase {
		return rowCase{name: "if", op: "If", opset: 13, attrs: []ir.Attr{attr("then_branch", branch(a)), attr("else_branch", branch(b))}, in: []*tensor.Tensor{tensor.Scalar(yes)}, want: []*tensor.Tensor{want}}
	}
	a, b := f32([]int{2}, 1, 2), f32([]int{2}, 3, 4)
	runRows(t, []rowCase{cond(true, a, b, a), cond(false, a, b, b)})
	long := f32([]int{3}, 3, 4, 5)
	bound := cond(true, a, long, a)
	bound.bind = []int{0}
	runRows(t, []rowCase{bound})
	refused(t, []rowCase{cond(true, a, long, a)})
}

// TestSequences runs sequence ops one after the other, as a compiled graph may
// hold them inside.
func TestSequences(t *testing.T) {
	g := &ir.Graph{Name: "sequences"}
	vals := map[string]*ir.Value{}
	input := func(name string, x *tensor.Tensor) {
		vals[name] = &ir.Value{Name: name, Type: ir.TensorType(x.DType, x.Shape...)}
		g.Inputs = append(g.Inputs, vals[name])
	}
	node := func(op, out string, in []string, as ...any) {
		n := &ir.Node{Op: op, Name: out, Attrs: attrs(as...)}
		for _, i := range in {
			n.Inputs = append(n.Inputs, vals[i])
		}
		vals[out] = &ir.Value{Name: out, Def: n}
		n.Outputs = []*ir.Value{vals[out]}
		g.Nodes = append(g.Nodes, n)
	}
	x := f32([]int{4}, 1, 2, 3, 4)
	input("x", x)
	vals["minus"] = ir.NewConst("minus", tensor.Scalar(int64(-1)))
	vals["two"] = ir.NewConst("two", tensor.Scalar(int64(2)))
	node("SplitToSequence", "s", []string{"x", "two"})                         // [1 2] [3 4]
	node("SequenceAt", "last", []string{"s", "minus"})                         // [3 4]
	node("SequenceInsert", "s2", []string{"s", "last", "minus"})               // [1 2] [3 4] [3 4]
	node("SequenceErase", "s3", []string{"s2", "minus"})                       // [1 2] [3 4]
	node("ConcatFromSequence", "y", []string{"s2"}, "axis", 0)                 // 1 2 3 4 3 4
	node("ConcatFromSequence", "z", []string{"s3"}, "axis", -1, "new_axis", 1) // columns
	node("SequenceLength", "n", []string{"s2"})
	for _, o := range []string{"y", "z", "n"} {
		g.Outputs = append(g.Outputs, vals[o])
	}
	e, err := Expand(g, Options{Opsets: map[string]int{"": 17}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Eval(g, map[string]int{"": 17}, []*ir.Data{ir.TensorData(x)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Graph.Outputs) != 3 {
		t.Fatalf("%d outputs, want 3", len(e.Graph.Outputs))
	}
	want := []*tensor.Tensor{f32([]int{6}, 1, 2, 3, 4, 3, 4), f32([]int{2, 2}, 1, 3, 2, 4), i64(nil, 3)}
	for i, w := range want {
		if y := got[i].Tensor; !tensor.Equal(y, w) {
			t.Errorf("output %d is %s %v, want %s %v", i, y, y.Floats(), w, w.Floats())
		}
		if s := e.Graph.Outputs[i].Static(); !slices.Equal(s, w.Shape) {
			t.Errorf("output %d expands to shape %v, want %v", i, s, w.Shape)
		}
	}
	node("SequenceAt", "beyond", []string{"s", "two"})
	g.Outputs = []*ir.Value{vals["beyond"]}
	if _, err := Expand(g, Options{Opsets: map[string]int{"": 17}}); fault.KindOf(err) != fault.BadModel {
		t.Errorf("a position beyond the sequence: %v", err)
	}
}
