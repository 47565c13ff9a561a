package onnxgo

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/owulveryck/onnx-go"
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/simple"
	gtensor "gorgonia.org/tensor"
)

// node is a value as onnx-go sees it.
type node struct {
	id   int64
	name string
	t    gtensor.Tensor
	// fed says that the tensor was set after the last operation: by the
	// caller's SetInput, not by the file.
	fed bool
	// declared is the placeholder that the file's description of the value gave.
	declared gtensor.Tensor
	rec      *recorder
}

// ID, SetName and GetName make a node an onnx.Namer.
func (n *node) ID() int64        { return n.id }
func (n *node) SetName(s string) { n.name = s }
func (n *node) GetName() string  { return n.name }

// SetTensor and GetTensor make it an onnx.DataCarrier.
func (n *node) SetTensor(t gtensor.Tensor) error {
	if n.t == nil {
		n.rec.data = append(n.rec.data, n)
		n.declared = t
	}
	n.t = t
	n.fed = len(n.rec.ops) > 0
	return nil
}

// GetTensor gives what was set or computed.
func (n *node) GetTensor() gtensor.Tensor { return n.t }

// operation is one call of ApplyOperation.
type operation struct {
	op      onnx.Operation
	outputs []*node
}

// recorder receives a model from onnx-go's decoder. The embedded graph keeps
// what gonum's interface asks for; reads keeps each node's inputs in order,
// which a simple graph loses where one value is read twice.
type recorder struct {
	*simple.WeightedDirectedGraph
	nodes []*node
	reads map[int64][]*node
	ops   []operation
	data  []*node // nodes that carry a tensor, in the order of the first
}

func newRecorder() *recorder {
	return &recorder{WeightedDirectedGraph: simple.NewWeightedDirectedGraph(0, -1), reads: map[int64][]*node{}}
}

// NewNode numbers nodes from 0: onnx-go's SetInput counts on it.
func (r *recorder) NewNode() graph.Node {
	n := &node{id: int64(len(r.nodes)), rec: r}
	r.nodes = append(r.nodes, n)
	return n
}

// SetWeightedEdge notes that one node reads another; the weight is the place
// among the inputs.
func (r *recorder) SetWeightedEdge(e graph.WeightedEdge) {
	to, from, at := e.From().ID(), r.nodes[e.To().ID()], int(e.Weight())
	list := r.reads[to]
	for len(list) <= at {
		list = append(list, nil)
	}
	list[at] = from
	r.reads[to] = list
	if e.From().ID() != e.To().ID() {
		r.WeightedDirectedGraph.SetWeightedEdge(e)
	}
}

// ApplyOperation notes an operation.
func (r *recorder) ApplyOperation(op onnx.Operation, out ...graph.Node) error {
	o := operation{op: op}
	for _, n := range out {
		o.outputs = append(o.outputs, r.nodes[n.ID()])
	}
	r.ops = append(r.ops, o)
	return nil
}

// computed are the names that operations give. Names, not nodes: where a file
// describes a value twice, onnx-go makes a node for each description.
func (r *recorder) computed() map[string]bool {
	c := map[string]bool{}
	for _, o := range r.ops {
		for _, n := range o.outputs {
			c[n.name] = true
		}
	}
	return c
}

// read are the names that operations read.
func (r *recorder) read() map[string]bool {
	m := map[string]bool{}
	for _, list := range r.reads {
		for _, n := range list {
			if n != nil {
				m[n.name] = true
			}
		}
	}
	return m
}

// inputs are what an operation reads. onnx-go invents an input for operations
// without one: a node named after it that nothing else knows.
func (r *recorder) inputs(o operation, computed map[string]bool) []*node {
	var list []*node
	for _, n := range o.outputs {
		if n.name != "" {
			list = r.reads[n.id]
			break
		}
	}
	if len(list) == 1 && list[0].t == nil && !computed[list[0].name] && isInvented(list[0].name) {
		return nil
	}
	return list
}

func isInvented(name string) bool {
	const suffix = "/input"
	return len(name) >= len(suffix) && name[len(name)-len(suffix):] == suffix
}

// builder makes the graph of what was recorded.
type builder struct {
	rec      *recorder
	computed map[string]bool
	vals     map[string]*ir.Value
}

func newBuilder(r *recorder) *builder {
	return &builder{rec: r, computed: r.computed(), vals: map[string]*ir.Value{}}
}

// value is the value of a node; a nameless one is an omitted input or output.
func (b *builder) value(n *node) *ir.Value {
	if n == nil || n.name == "" {
		return nil
	}
	v := b.vals[n.name]
	if v == nil {
		v = &ir.Value{Name: n.name}
		b.vals[n.name] = v
	}
	return v
}

// nodes converts the operations, in their order.
func (b *builder) nodes() ([]*ir.Node, error) {
	var out []*ir.Node
	for _, o := range b.rec.ops {
		n := &ir.Node{Op: o.op.Name}
		for _, in := range b.rec.inputs(o, b.computed) {
			n.Inputs = append(n.Inputs, b.value(in))
		}
		for _, x := range o.outputs {
			v := b.value(x)
			if v != nil {
				v.Def = n
			}
			n.Outputs = append(n.Outputs, v)
		}
		if err := attrs(n, o.op.Attributes); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// attrs converts the attributes; onnx-go loses their order, so they are sorted.
func attrs(n *ir.Node, m map[string]any) error {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := ir.Attr{Name: name, Val: m[name]}
		switch v := a.Val.(type) {
		case float32, int64, string:
		case []float32:
			a.Val = append([]float32{}, v...)
		case []int64:
			a.Val = append([]int64{}, v...)
		case []string:
			a.Val = append([]string{}, v...)
		case gtensor.Tensor:
			t, err := fromGorgonia(v)
			if err != nil {
				return err
			}
			a.Val = t
		default:
			return fault.New(fault.Unsupported, "onnx-go gives attribute %q as %T", name, a.Val).AtNode(n.Label(), n.Op)
		}
		n.Attrs = append(n.Attrs, a)
	}
	return nil
}
