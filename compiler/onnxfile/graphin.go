package onnxfile

import (
	"bytes"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// scope is the names that a graph's nodes may read at a point of the list.
type scope struct {
	outer *scope
	vals  map[string]*ir.Value
	// makers are the nodes by the names they compute, those further down the
	// list included, for error messages.
	makers map[string]int
	nodes  []*pb.NodeProto
	at     int // the node being read
}

func newScope(outer *scope, nodes []*pb.NodeProto) *scope {
	s := &scope{outer: outer, vals: map[string]*ir.Value{}, makers: map[string]int{}, nodes: nodes}
	for i, n := range nodes {
		for _, o := range n.Output {
			if o != "" {
				s.makers[o] = i
			}
		}
	}
	return s
}

func (s *scope) find(name string) *ir.Value {
	for ; s != nil; s = s.outer {
		if v := s.vals[name]; v != nil {
			return v
		}
	}
	return nil
}

// define adds a value; what says what it is, for messages.
func (s *scope) define(v *ir.Value, what string) error {
	if v.Name == "" {
		return bad("%s has no name", what)
	}
	if s.vals[v.Name] != nil {
		return bad("%s %q: the name is taken by another value of the graph", what, v.Name)
	}
	if s.outer.find(v.Name) != nil {
		return bad("%s %q: the name is taken by a value of the enclosing graph", what, v.Name).
			Hint("ONNX wants each name to be defined once; rename the inner one")
	}
	s.vals[v.Name] = v
	return nil
}

// graph converts a graph; a subgraph reads the names of outer.
func (r *reader) graph(gp *pb.GraphProto, outer *scope) (*ir.Graph, error) {
	g := &ir.Graph{Name: gp.Name, Doc: gp.DocString, Meta: kvs(gp.MetadataProps), Extra: graphExtra(gp)}
	s := newScope(outer, gp.Node)
	for _, p := range gp.Input {
		v := &ir.Value{Name: p.Name}
		if err := s.define(v, "graph input"); err != nil {
			return nil, err
		}
		if err := r.describe(v, p, asInput); err != nil {
			return nil, err
		}
		g.Inputs = append(g.Inputs, v)
	}
	if err := r.inits(g, gp, s); err != nil {
		return nil, err
	}
	if err := r.nodes(g, gp.Node, s); err != nil {
		return nil, err
	}
	for _, p := range gp.Output {
		v := s.find(p.Name)
		if v == nil {
			return nil, bad("graph output %q is computed by no node", p.Name)
		}
		if err := r.describe(v, p, asOutput); err != nil {
			return nil, err
		}
		g.Outputs = append(g.Outputs, v)
	}
	return g, r.infoList(g, gp.ValueInfo, s)
}

// infoList reads value_info. A description of a name that no longer exists
// stays as a value that nothing computes.
func (r *reader) infoList(g *ir.Graph, list []*pb.ValueInfoProto, s *scope) error {
	seen := map[*ir.Value]bool{}
	for _, p := range list {
		v := s.vals[p.Name]
		if v == nil || seen[v] {
			v = &ir.Value{Name: p.Name}
		}
		seen[v] = true
		if err := r.describe(v, p, asInfo); err != nil {
			return err
		}
		g.Infos = append(g.Infos, v)
	}
	return nil
}

func (r *reader) inits(g *ir.Graph, gp *pb.GraphProto, s *scope) error {
	add := func(name string, read func() (*ir.Value, error)) error {
		v, err := read()
		if err != nil {
			return prefixed(err, "initializer %q", name)
		}
		if in := s.vals[name]; in != nil && in.Const == nil {
			in.Const = v.Const
			if in.Type.Form == ir.FormNone {
				in.Type = v.Type
			}
			v = in
		} else if err := s.define(v, "initializer"); err != nil {
			return err
		}
		g.Inits = append(g.Inits, v)
		return nil
	}
	for _, p := range gp.Initializer {
		err := add(p.Name, func() (*ir.Value, error) {
			t, err := r.tensor(p)
			if err != nil {
				return nil, err
			}
			return ir.NewConst(p.Name, t), nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range gp.SparseInitializer {
		if p.Values == nil {
			return bad("a sparse initializer has no values")
		}
		err := add(p.Values.Name, func() (*ir.Value, error) {
			t, err := r.dense(p)
			if err != nil {
				return nil, err
			}
			r.m.tensors[t] = &tensorForm{sparse: p}
			return ir.NewConst(p.Values.Name, t), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) nodes(g *ir.Graph, list []*pb.NodeProto, s *scope) error {
	for i, p := range list {
		s.at = i
		n, err := r.node(p, s)
		if err != nil {
			return err
		}
		g.Nodes = append(g.Nodes, n)
	}
	return nil
}

func (r *reader) node(p *pb.NodeProto, s *scope) (*ir.Node, error) {
	n := &ir.Node{
		Op: p.OpType, Domain: p.Domain, Overload: p.Overload, Name: p.Name, Doc: p.DocString,
		Meta: kvs(p.MetadataProps), Extra: nodeExtra(p),
	}
	for _, o := range p.Output {
		var v *ir.Value
		if o != "" {
			v = &ir.Value{Name: o, Def: n}
		}
		n.Outputs = append(n.Outputs, v)
	}
	if n.Op == "" {
		return nil, bad("node %q has no op type", n.Label())
	}
	for i, name := range p.Input {
		var v *ir.Value
		if name != "" {
			if v = s.find(name); v == nil {
				return nil, atNode(s.missing(i, name), n)
			}
		}
		n.Inputs = append(n.Inputs, v)
	}
	seen := map[string]bool{}
	for _, a := range p.Attribute {
		if seen[a.Name] {
			return nil, atNode(bad("attribute %q is given twice", a.Name), n)
		}
		seen[a.Name] = true
		x, err := r.attr(a, s)
		if err != nil {
			return nil, atNode(err, n)
		}
		n.Attrs = append(n.Attrs, x)
	}
	for _, v := range n.Outputs {
		if v == nil {
			continue
		}
		if err := s.define(v, "output"); err != nil {
			return nil, atNode(err, n)
		}
	}
	return n, nil
}

func nodeExtra(p *pb.NodeProto) []byte {
	if p.Has&^(1<<3|1<<4|1<<6|1<<7|1<<8) == 0 && p.Name != "" && len(p.Unknown) == 0 && len(p.DeviceConfigurations) == 0 &&
		(p.DocString != "" || !p.Has.Has(6)) && (p.Domain != "" || !p.Has.Has(7)) && (p.Overload != "" || !p.Has.Has(8)) {
		return nil // the usual case, without a copy
	}
	x := *p
	clearStrings(&x.Has, map[int]*string{3: &x.Name, 4: &x.OpType, 6: &x.DocString, 7: &x.Domain, 8: &x.Overload})
	x.Input, x.Output, x.Attribute, x.MetadataProps = nil, nil, nil, nil
	return marshalRest(&x)
}

func graphExtra(gp *pb.GraphProto) []byte {
	x := *gp
	clearStrings(&x.Has, map[int]*string{2: &x.Name, 10: &x.DocString})
	x.Node, x.Initializer, x.SparseInitializer, x.MetadataProps = nil, nil, nil, nil
	x.Input, x.Output, x.ValueInfo = nil, nil, nil
	return marshalRest(&x)
}

// describe takes a value's type and notes from a ValueInfoProto. The first
// description of a value counts; what another one says differently is kept
// for writing back.
func (r *reader) describe(v *ir.Value, p *pb.ValueInfoProto, as role) error {
	t, err := typeIn(p.Type)
	if err != nil {
		return prefixed(err, "type of %q", p.Name)
	}
	if v.Type.Form == ir.FormNone {
		v.Type = t
	}
	if v.Doc == "" && v.Meta == nil && v.Extra == nil {
		x := *p
		clearStrings(&x.Has, map[int]*string{1: &x.Name, 3: &x.DocString})
		x.Type, x.MetadataProps = nil, nil
		v.Doc, v.Meta, v.Extra = p.DocString, kvs(p.MetadataProps), marshalRest(&x)
	}
	w := &writer{m: r.m}
	q, err := w.valueInfo(v, asInfo, false)
	if err != nil {
		return err
	}
	if !bytes.Equal(pb.Marshal(q), pb.Marshal(p)) {
		r.m.infos[infoKey{v, as}] = &infoForm{src: p, typ: v.Type}
	}
	return nil
}

// function converts a model-local function.
func (r *reader) function(fp *pb.FunctionProto) (*Function, error) {
	f := &Function{
		Domain: fp.Domain, Name: fp.Name, Overload: fp.Overload, Doc: fp.DocString,
		Params: fp.Attribute, Meta: kvs(fp.MetadataProps), Body: &ir.Graph{Name: fp.Name},
	}
	fail := func(err error) (*Function, error) { return nil, prefixed(err, "function %q", fp.Name) }
	if fp.Name == "" {
		return nil, bad("a function has no name")
	}
	for _, o := range fp.OpsetImport {
		f.Opsets = append(f.Opsets, readOpset(o))
	}
	s := newScope(nil, fp.Node)
	for _, name := range fp.Input {
		v := &ir.Value{Name: name}
		if err := s.define(v, "input"); err != nil {
			return fail(err)
		}
		f.Body.Inputs = append(f.Body.Inputs, v)
	}
	for _, a := range fp.AttributeProto {
		x, err := r.attr(a, nil)
		if err != nil {
			return fail(err)
		}
		f.Defaults = append(f.Defaults, x)
	}
	if err := r.nodes(f.Body, fp.Node, s); err != nil {
		return fail(err)
	}
	for _, name := range fp.Output {
		v := s.vals[name]
		if v == nil {
			return fail(bad("output %q is computed by no node", name))
		}
		f.Body.Outputs = append(f.Body.Outputs, v)
	}
	x := *fp
	clearStrings(&x.Has, map[int]*string{1: &x.Name, 8: &x.DocString, 10: &x.Domain, 13: &x.Overload})
	x.Input, x.Output, x.Attribute, x.AttributeProto, x.Node = nil, nil, nil, nil, nil
	x.OpsetImport, x.ValueInfo, x.MetadataProps = nil, nil, nil
	f.Extra = marshalRest(&x)
	return f, r.infoList(f.Body, fp.ValueInfo, s)
}
