package onnxfile

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/ir"
)

// maxInlined bounds the nodes that inlining may make: functions that call each
// other twice, thirty levels deep, would make a billion.
const maxInlined = 1 << 18

// SameMeaning reports whether an op means the same in two opset versions of its
// domain.
type SameMeaning func(domain, op string, a, b int) bool

// InlineFunctions replaces each call of a model-local function by the
// function's body, in subgraphs too, and drops the functions. A body that was
// written for another opset version than the model's is taken over if same
// says so for each of its ops; without same, versions must be equal.
func (m *Model) InlineFunctions(same SameMeaning) error {
	if len(m.Functions) == 0 {
		return nil
	}
	in := &inliner{m: m, same: same, names: map[string]bool{}, active: map[*Function]bool{}}
	collectNames(m.Graph, in.names)
	if err := in.graph(m.Graph); err != nil {
		return inFile(err, m.Path)
	}
	m.Functions = nil
	return nil
}

type inliner struct {
	m      *Model
	same   SameMeaning
	names  map[string]bool
	active map[*Function]bool // functions being expanded, to see recursion
	made   int
}

func (in *inliner) graph(g *ir.Graph) error {
	nodes, infos, err := in.nodes(g.Nodes)
	g.Nodes = nodes
	g.Infos = append(g.Infos, infos...)
	return err
}

// nodes expands the calls in a list; infos are the described values among
// those that came in.
func (in *inliner) nodes(list []*ir.Node) (out []*ir.Node, infos []*ir.Value, err error) {
	for _, n := range list {
		for _, s := range n.Subgraphs() {
			if err := in.graph(s); err != nil {
				return nil, nil, err
			}
		}
		f := in.m.Function(n)
		if f == nil {
			out = append(out, n)
			continue
		}
		body, described, err := in.call(f, n)
		if err != nil {
			return nil, nil, atNode(err, n)
		}
		out = append(out, body...)
		infos = append(infos, described...)
	}
	return out, infos, nil
}

func (in *inliner) call(f *Function, n *ir.Node) ([]*ir.Node, []*ir.Value, error) {
	if in.active[f] {
		return nil, nil, bad("function %q calls itself", f.Name)
	}
	if len(n.Inputs) > len(f.Body.Inputs) || len(n.Outputs) > len(f.Body.Outputs) {
		return nil, nil, bad("the call has %d inputs and %d outputs, function %q takes %d and gives %d",
			len(n.Inputs), len(n.Outputs), f.Name, len(f.Body.Inputs), len(f.Body.Outputs))
	}
	if err := in.opsets(f); err != nil {
		return nil, nil, err
	}
	attrs, err := callAttrs(f, n)
	if err != nil {
		return nil, nil, err
	}
	c := &cloner{in: in, vals: map[*ir.Value]*ir.Value{}, attrs: attrs, prefix: n.Label() + "/"}
	for i, v := range f.Body.Inputs {
		c.vals[v] = n.In(i)
	}
	tail, err := c.outputs(f, n)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := c.nodes(f.Body.Nodes)
	if err != nil {
		return nil, nil, err
	}
	nodes = append(nodes, tail...)
	if in.made += len(nodes); in.made > maxInlined {
		return nil, nil, unsupported("inlining functions makes more than %d nodes", maxInlined)
	}
	var infos []*ir.Value
	for _, v := range f.Body.Infos {
		if w := c.vals[v]; w != nil && w.Type.Form == ir.FormNone {
			w.Type = v.Type
			infos = append(infos, w)
		}
	}
	in.active[f] = true
	defer delete(in.active, f)
	out, inner, err := in.nodes(nodes)
	return out, append(infos, inner...), err
}

// outputs maps the function's outputs to the call's. One that is no node's own
// output (an input passed through, or an output given twice) takes an Identity.
func (c *cloner) outputs(f *Function, n *ir.Node) (tail []*ir.Node, err error) {
	for i, v := range f.Body.Outputs {
		if i >= len(n.Outputs) || n.Outputs[i] == nil {
			continue
		}
		out := n.Outputs[i]
		from, taken := c.vals[v]
		switch {
		case !taken:
			c.vals[v] = out
			continue
		case from == nil:
			return nil, bad("function %q gives %q, an input that the call omits", f.Name, v.Name)
		}
		id := &ir.Node{Op: "Identity", Inputs: []*ir.Value{from}, Outputs: []*ir.Value{out}}
		out.Def = id
		tail = append(tail, id)
	}
	return tail, nil
}

// callAttrs are the values that the body's references take: the defaults and
// what the call gives. A reference to neither leaves the attribute out.
func callAttrs(f *Function, n *ir.Node) (map[string]any, error) {
	attrs := map[string]any{}
	for _, a := range f.Defaults {
		attrs[a.Name] = a.Val
	}
	for _, a := range n.Attrs {
		if _, ok := a.Val.(ir.Ref); ok {
			return nil, bad("attribute %q refers to an attribute of a function, but the node is in none", a.Name)
		}
		attrs[a.Name] = a.Val
	}
	return attrs, nil
}

// opsets checks that the body's ops mean the same under the model's imports,
// and adds imports that the model lacks.
func (in *inliner) opsets(f *Function) error {
	for _, o := range f.Opsets {
		have := in.m.Opset(o.Domain)
		if have == 0 {
			in.m.Opsets = append(in.m.Opsets, o)
			continue
		}
		if int64(have) == o.Version {
			continue
		}
		err := f.Body.Walk(func(_ *ir.Graph, n *ir.Node) error {
			if normalDomain(n.Domain) != normalDomain(o.Domain) || in.m.Function(n) != nil {
				return nil
			}
			if in.same == nil || !in.same(normalDomain(n.Domain), n.Op, int(o.Version), have) {
				return unsupported("function %q uses %s of opset %d, which differs from the model's opset %d", f.Name, n.FullOp(), o.Version, have)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cloner copies a function's body for one call.
type cloner struct {
	in     *inliner
	vals   map[*ir.Value]*ir.Value // body → copy; nil for an omitted input
	attrs  map[string]any
	prefix string
}

func (c *cloner) fresh(v *ir.Value) *ir.Value {
	w := &ir.Value{Type: v.Type, Const: v.Const, Doc: v.Doc, Meta: v.Meta, Extra: v.Extra}
	w.Name = c.prefix + v.Name
	for i := 1; c.in.names[w.Name]; i++ {
		w.Name = fmt.Sprintf("%s%s_%d", c.prefix, v.Name, i)
	}
	c.in.names[w.Name] = true
	c.vals[v] = w
	return w
}

func (c *cloner) nodes(list []*ir.Node) ([]*ir.Node, error) {
	var out []*ir.Node
	for _, n := range list {
		m, err := c.node(n)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (c *cloner) node(n *ir.Node) (*ir.Node, error) {
	m := *n
	m.Inputs, m.Outputs, m.Attrs = nil, nil, nil
	if n.Name != "" {
		m.Name = c.prefix + n.Name
	}
	for _, v := range n.Inputs {
		if v != nil {
			v = c.vals[v]
		}
		m.Inputs = append(m.Inputs, v)
	}
	for _, a := range n.Attrs {
		val, ok, err := c.attr(a.Val)
		if err != nil {
			return nil, err
		}
		if ok {
			a.Val = val
			m.Attrs = append(m.Attrs, a)
		}
	}
	for _, v := range n.Outputs {
		if v != nil {
			w, known := c.vals[v]
			if !known {
				w = c.fresh(v)
			}
			w.Def = &m
			v = w
		}
		m.Outputs = append(m.Outputs, v)
	}
	return &m, nil
}

// attr copies an attribute's value; a reference becomes what the call gives,
// or nothing.
func (c *cloner) attr(val any) (any, bool, error) {
	switch v := val.(type) {
	case ir.Ref:
		x, ok := c.attrs[v.Name]
		return x, ok, nil
	case *ir.Graph:
		g, err := c.graph(v)
		return g, true, err
	case []*ir.Graph:
		gs, err := each(v, c.graph)
		return gs, true, err
	}
	return val, true, nil
}

func (c *cloner) graph(g *ir.Graph) (*ir.Graph, error) {
	h := *g
	h.Inputs, h.Inits, h.Infos, h.Outputs = nil, nil, nil, nil
	for _, v := range g.Inputs {
		h.Inputs = append(h.Inputs, c.fresh(v))
	}
	for _, v := range g.Inits {
		w, ok := c.vals[v]
		if !ok {
			w = c.fresh(v)
		}
		h.Inits = append(h.Inits, w)
	}
	var err error
	if h.Nodes, err = c.nodes(g.Nodes); err != nil {
		return nil, err
	}
	for _, v := range g.Outputs {
		w := c.vals[v]
		if w == nil {
			return nil, bad("a subgraph gives %q, an input that the call omits", v.Name)
		}
		h.Outputs = append(h.Outputs, w)
	}
	for _, v := range g.Infos {
		if w := c.vals[v]; w != nil {
			h.Infos = append(h.Infos, w)
		}
	}
	return &h, nil
}
