package passes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/passes"
)

// drawn builds random graphs of what the rules look for.
type drawn struct {
	g    *ir.Graph
	rng  *rand.Rand
	vals []*ir.Value
	dims map[*ir.Value][]int // static shapes, as the first dimension is 3 when fed
	n    int
}

func (d *drawn) constant(shape ...int) *ir.Value {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		// Few values, so that neutral ones and equal constants occur.
		t.SetFloat(i, []float64{1, 1, 0.5, 2, -1}[d.rng.IntN(5)])
	}
	if d.rng.IntN(3) == 0 {
		for i := range t.Len() {
			t.SetFloat(i, 1)
		}
	}
	return d.init(t)
}

func (d *drawn) init(t *tensor.Tensor) *ir.Value {
	d.n++
	v := ir.NewConst(fmt.Sprintf("c%d", d.n), t)
	d.g.Inits = append(d.g.Inits, v)
	return v
}

func (d *drawn) node(op string, shape []int, attrs []ir.Attr, in ...*ir.Value) {
	d.n++
	n := &ir.Node{Op: op, Inputs: in, Attrs: attrs}
	v := &ir.Value{Name: fmt.Sprintf("v%d", d.n), Def: n}
	n.Outputs = []*ir.Value{v}
	d.g.Nodes = append(d.g.Nodes, n)
	d.vals = append(d.vals, v)
	d.dims[v] = shape
}

// step adds a node that reads one of the newest values.
func (d *drawn) step() {
	x := d.vals[len(d.vals)-1-d.rng.IntN(min(3, len(d.vals)))]
	s := d.dims[x]
	ints := func(name string, v ...int) ir.Attr { return ir.Attr{Name: name, Val: ir.Int64s(v)} }
	vector := func(v ...int) *ir.Value { return d.init(tensor.Of(ir.Int64s(v), len(v))) }
	switch d.rng.IntN(12) {
	case 0:
		d.node([]string{"Relu", "Neg", "Identity", "Sigmoid", "Dropout"}[d.rng.IntN(5)], s, nil, x)
	case 1, 2:
		p := d.rng.Perm(len(s))
		t := make([]int, len(s))
		for i, a := range p {
			t[i] = s[a]
		}
		d.node("Transpose", t, []ir.Attr{ints("perm", p...)}, x)
	case 3:
		d.node("Reshape", []int{s[0], tensor.Numel(s[1:])}, nil, x, vector(0, -1))
		if s[0] != 3 {
			d.vals = d.vals[:len(d.vals)-1]
			d.g.Nodes = d.g.Nodes[:len(d.g.Nodes)-1]
		}
	case 4:
		t := append([]int{1}, s...)
		d.node("Unsqueeze", t, nil, x, vector(0))
		d.node("Squeeze", s, nil, d.vals[len(d.vals)-1], vector(0))
	case 5, 6:
		k := d.constant(append([]int{}, d.ones(s)...)...)
		op := []string{"Mul", "Add", "Sub", "Div"}[d.rng.IntN(4)]
		if d.rng.IntN(3) == 0 && op != "Div" {
			d.node(op, s, nil, k, x)
		} else {
			d.node(op, s, nil, x, k)
		}
	case 7:
		if len(s) == 4 && s[2] > 1 && s[3] > 1 {
			d.node("Conv", []int{s[0], 2, s[2] - 1, s[3] - 1}, nil, x, d.constant(2, s[1], 2, 2))
		}
	case 8:
		if len(s) == 4 && s[0] == 3 {
			v := func() *ir.Value { return d.constant(s[1]) }
			variance := d.init(tensor.Of(slices.Repeat([]float32{2}, s[1]), s[1]))
			d.node("BatchNormalization", s, nil, x, v(), v(), v(), variance)
		}
	case 9:
		if len(s) == 4 {
			t := []int{s[0], s[1], s[2] + 1, s[3] + 2}
			d.node("Pad", t, nil, x, vector(0, 0, 1, 0, 0, 0, 0, 2))
		}
	case 10:
		for _, y := range d.vals {
			if slices.Equal(d.dims[y], s) {
				d.node([]string{"Add", "Mul", "Max"}[d.rng.IntN(3)], s, nil, x, y)
				break
			}
		}
	case 11:
		if len(s) == 2 && s[0] == 3 {
			d.node("Gemm", []int{s[0], 2}, []ir.Attr{{Name: "transB", Val: int64(1)}, {Name: "alpha", Val: float32(0.5)}}, x, d.constant(2, s[1]))
		}
	}
}

// ones is a shape that broadcasts into s: each axis kept or 1, the one of the
// batch always 1.
func (d *drawn) ones(s []int) []int {
	k := slices.Clone(s)
	for i := range k {
		if k[i] == 3 || d.rng.IntN(2) == 0 {
			k[i] = 1
		}
	}
	return k[d.rng.IntN(len(k)):]
}

// TestRandomGraphs holds that random graphs compute the same when simplified,
// with a batch that is free and with one that is fixed.
func TestRandomGraphs(t *testing.T) {
	build := func(seed uint64, free bool) *ir.Graph {
		d := &drawn{g: &ir.Graph{Level: ir.ONNX, Name: "random"}, rng: rand.New(rand.NewPCG(seed, 1)), dims: map[*ir.Value][]int{}}
		x := &ir.Value{Name: "x", Type: ir.TensorType(tensor.F32, 3, 2, 4, 5)}
		if free {
			x.Type.Shape[0] = ir.Dim{N: -1, Param: "N"}
		}
		d.g.Inputs, d.vals = []*ir.Value{x}, []*ir.Value{x}
		d.dims[x] = []int{3, 2, 4, 5}
		for range 14 {
			d.step()
		}
		for _, v := range d.vals[max(1, len(d.vals)-2):] {
			v.Type = ir.Type{Form: ir.FormTensor, DType: tensor.F32}
			d.g.Outputs = append(d.g.Outputs, v)
		}
		return d.g
	}
	edits, graphs := 0, 0
	for seed := range uint64(1500) {
		g := build(seed, seed%2 == 0)
		if len(g.Outputs) == 0 {
			continue
		}
		before := ir.Print(g)
		m := parsed(t, before, 17, 8)
		rep, err := passes.Simplify(context.Background(), m, passes.Options{})
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, before)
		}
		edits, graphs = edits+len(rep.Edits), graphs+1
		sameResults(t, parsed(t, before, 17, 8), m, 0)
		if t.Failed() {
			t.Fatalf("seed %d:\n%s\nbecame\n%s", seed, before, ir.Print(m.Graph))
		}
	}
	t.Logf("%d graphs, %d edits", graphs, edits)
}
