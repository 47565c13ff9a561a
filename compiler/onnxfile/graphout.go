package onnxfile

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// writer converts a model to messages.
type writer struct {
	m     *Model
	ext   *externalOut
	names map[*ir.Value]string // given to values that have none
	taken map[string]bool
}

// name is a value's name, "" for an omitted one; a value without gets a name that nobody has.
func (w *writer) name(v *ir.Value) string {
	if v == nil {
		return ""
	}
	if v.Name != "" {
		return v.Name
	}
	if n, ok := w.names[v]; ok {
		return n
	}
	if w.taken == nil {
		w.taken, w.names = map[string]bool{}, map[*ir.Value]string{}
		collectNames(w.m.Graph, w.taken)
		for _, f := range w.m.Functions {
			collectNames(f.Body, w.taken)
		}
	}
	for i := len(w.names); ; i++ {
		n := fmt.Sprintf("v%d", i)
		if !w.taken[n] {
			w.taken[n] = true
			w.names[v] = n
			return n
		}
	}
}

func collectNames(g *ir.Graph, taken map[string]bool) {
	if g == nil {
		return
	}
	for _, list := range [][]*ir.Value{g.Inputs, g.Inits, g.Infos} {
		for _, v := range list {
			taken[v.Name] = true
		}
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				taken[v.Name] = true
			}
		}
		for _, s := range n.Subgraphs() {
			collectNames(s, taken)
		}
	}
}

func (w *writer) model() (*pb.ModelProto, error) {
	m := w.m
	mp := &pb.ModelProto{}
	if err := pb.Unmarshal(m.Extra, mp); err != nil {
		return nil, damaged(err)
	}
	mp.IrVersion = m.IRVersion
	mp.Has.Set(1)
	setString(&mp.ProducerName, m.Producer)
	setString(&mp.ProducerVersion, m.ProducerVersion)
	setString(&mp.Domain, m.Domain)
	setString(&mp.DocString, m.Doc)
	if m.Version != 0 {
		mp.ModelVersion = m.Version
	}
	mp.MetadataProps = kvsOut(m.Meta)
	var err error
	if mp.OpsetImport, err = each(m.Opsets, opsetOut); err != nil {
		return nil, err
	}
	if mp.Graph, err = w.graph(m.Graph); err != nil {
		return nil, err
	}
	if m.IRVersion < 4 && !m.laxInits {
		if err := w.initsToInputs(mp.Graph, m.Graph); err != nil {
			return nil, err
		}
	}
	mp.Functions, err = each(m.Functions, w.function)
	return mp, err
}

// initsToInputs lists every initializer among the inputs, as IR version 3
// demands.
func (w *writer) initsToInputs(gp *pb.GraphProto, g *ir.Graph) error {
	in := map[*ir.Value]bool{}
	for _, v := range g.Inputs {
		in[v] = true
	}
	for _, v := range g.Inits {
		if in[v] {
			continue
		}
		p, err := w.valueInfo(v, asInput, true)
		if err != nil {
			return err
		}
		gp.Input = append(gp.Input, p)
	}
	return nil
}

func damaged(err error) error { return bad("kept wire fields are damaged: %w", err) }

func setString(dst *string, s string) {
	if s != "" {
		*dst = s
	}
}

func kvsOut(list []ir.KV) []*pb.StringStringEntryProto {
	var out []*pb.StringStringEntryProto
	for _, kv := range list {
		out = append(out, entry(kv.Key, kv.Value))
	}
	return out
}

func opsetOut(o Opset) (*pb.OperatorSetIdProto, error) {
	p := &pb.OperatorSetIdProto{}
	if err := pb.Unmarshal(o.extra, p); err != nil {
		return nil, damaged(err)
	}
	setString(&p.Domain, o.Domain)
	p.Version = o.Version
	p.Has.Set(2)
	return p, nil
}

func (w *writer) graph(g *ir.Graph) (*pb.GraphProto, error) {
	gp := &pb.GraphProto{}
	if err := pb.Unmarshal(g.Extra, gp); err != nil {
		return nil, damaged(err)
	}
	setString(&gp.Name, g.Name)
	setString(&gp.DocString, g.Doc)
	gp.MetadataProps = kvsOut(g.Meta)
	var err error
	if gp.Node, err = each(g.Nodes, w.node); err != nil {
		return nil, err
	}
	if gp.Input, err = w.infoList(g.Inputs, asInput); err != nil {
		return nil, err
	}
	if gp.Output, err = w.infoList(g.Outputs, asOutput); err != nil {
		return nil, err
	}
	if gp.ValueInfo, err = w.infoList(liveInfos(g), asInfo); err != nil {
		return nil, err
	}
	for _, v := range g.Inits {
		if f := w.m.tensors[v.Const]; f != nil && f.sparse != nil {
			gp.SparseInitializer = append(gp.SparseInitializer, f.sparse)
			continue
		}
		p, err := w.tensor(w.name(v), v.Const)
		if err != nil {
			return nil, err
		}
		gp.Initializer = append(gp.Initializer, p)
	}
	return gp, nil
}

// liveInfos drops the descriptions of values that a pass took out of the
// graph; those that the file had for no value at all stay.
func liveInfos(g *ir.Graph) []*ir.Value {
	if len(g.Infos) == 0 {
		return nil
	}
	live := map[*ir.Value]bool{}
	for _, v := range append(append([]*ir.Value{}, g.Inputs...), g.Inits...) {
		live[v] = true
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			live[v] = true
		}
	}
	var out []*ir.Value
	for _, v := range g.Infos {
		if live[v] || v.Def == nil && v.Const == nil {
			out = append(out, v)
		}
	}
	return out
}

func (w *writer) infoList(list []*ir.Value, as role) ([]*pb.ValueInfoProto, error) {
	return each(list, func(v *ir.Value) (*pb.ValueInfoProto, error) { return w.valueInfo(v, as, true) })
}

// valueInfo describes a value; known is whether a description that the file
// had is used as long as the type is the same.
func (w *writer) valueInfo(v *ir.Value, as role, known bool) (*pb.ValueInfoProto, error) {
	if f := w.m.infos[infoKey{v, as}]; known && f != nil && sameType(f.typ, v.Type) {
		p := *f.src
		setString(&p.Name, w.name(v))
		return &p, nil
	}
	p := &pb.ValueInfoProto{}
	if err := pb.Unmarshal(v.Extra, p); err != nil {
		return nil, damaged(err)
	}
	setString(&p.Name, w.name(v))
	setString(&p.DocString, v.Doc)
	p.MetadataProps = kvsOut(v.Meta)
	p.Type = typeOut(v.Type)
	return p, nil
}

func sameType(a, b ir.Type) bool {
	if a.Form != b.Form || a.DType != b.DType || a.HasRank != b.HasRank || len(a.Shape) != len(b.Shape) ||
		a.Key != b.Key || a.Denotation != b.Denotation || a.Opaque != b.Opaque || (a.Elem == nil) != (b.Elem == nil) {
		return false
	}
	for i := range a.Shape {
		if a.Shape[i] != b.Shape[i] {
			return false
		}
	}
	return a.Elem == nil || sameType(*a.Elem, *b.Elem)
}

func (w *writer) node(n *ir.Node) (*pb.NodeProto, error) {
	p := &pb.NodeProto{}
	if err := pb.Unmarshal(n.Extra, p); err != nil {
		return nil, damaged(err)
	}
	for _, v := range n.Inputs {
		p.Input = append(p.Input, w.name(v))
	}
	for _, v := range n.Outputs {
		p.Output = append(p.Output, w.name(v))
	}
	setString(&p.Name, n.Name)
	setString(&p.OpType, n.Op)
	setString(&p.Domain, n.Domain)
	setString(&p.Overload, n.Overload)
	setString(&p.DocString, n.Doc)
	p.MetadataProps = kvsOut(n.Meta)
	var err error
	if p.Attribute, err = each(n.Attrs, w.attr); err != nil {
		return nil, atNode(err, n)
	}
	return p, nil
}

func (w *writer) function(f *Function) (*pb.FunctionProto, error) {
	p := &pb.FunctionProto{}
	if err := pb.Unmarshal(f.Extra, p); err != nil {
		return nil, damaged(err)
	}
	setString(&p.Name, f.Name)
	setString(&p.Domain, f.Domain)
	setString(&p.Overload, f.Overload)
	setString(&p.DocString, f.Doc)
	p.Attribute, p.MetadataProps = f.Params, kvsOut(f.Meta)
	for _, v := range f.Body.Inputs {
		p.Input = append(p.Input, w.name(v))
	}
	for _, v := range f.Body.Outputs {
		p.Output = append(p.Output, w.name(v))
	}
	var err error
	if p.AttributeProto, err = each(f.Defaults, w.attr); err != nil {
		return nil, err
	}
	if p.Node, err = each(f.Body.Nodes, w.node); err != nil {
		return nil, err
	}
	if p.OpsetImport, err = each(f.Opsets, opsetOut); err != nil {
		return nil, err
	}
	p.ValueInfo, err = w.infoList(liveInfos(f.Body), asInfo)
	return p, err
}
