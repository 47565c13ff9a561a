package onnxfile

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attrType is the type of an attribute; files of IR version 1 did not say it.
func attrType(a *pb.AttributeProto) pb.AttributeType {
	if a.Type != pb.AttributeType_UNDEFINED {
		return a.Type
	}
	switch {
	case a.Has.Has(2):
		return pb.AttributeType_FLOAT
	case a.Has.Has(3):
		return pb.AttributeType_INT
	case a.Has.Has(4):
		return pb.AttributeType_STRING
	case a.T != nil:
		return pb.AttributeType_TENSOR
	case a.G != nil:
		return pb.AttributeType_GRAPH
	case len(a.Floats) > 0:
		return pb.AttributeType_FLOATS
	case len(a.Ints) > 0:
		return pb.AttributeType_INTS
	case len(a.Strings) > 0:
		return pb.AttributeType_STRINGS
	case len(a.Tensors) > 0:
		return pb.AttributeType_TENSORS
	case len(a.Graphs) > 0:
		return pb.AttributeType_GRAPHS
	}
	return pb.AttributeType_UNDEFINED
}

// attr converts an attribute; subgraphs read names from outer.
func (r *reader) attr(a *pb.AttributeProto, outer *scope) (ir.Attr, error) {
	out := ir.Attr{Name: a.Name, Doc: a.DocString}
	if a.Name == "" {
		return out, bad("an attribute has no name")
	}
	x := *a
	clearStrings(&x.Has, map[int]*string{1: &x.Name, 13: &x.DocString, 21: &x.RefAttrName})
	x.Type = 0
	x.Has.Clear(20)
	typ := attrType(a)
	if a.RefAttrName != "" {
		out.Val = ir.Ref{Name: a.RefAttrName, Kind: int32(typ)}
		out.Extra = marshalRest(&x)
		return out, nil
	}
	v, err := r.attrValue(typ, a, &x, outer)
	if err != nil {
		return out, err
	}
	out.Val = v
	if raw, ok := v.(ir.Raw); ok {
		x.Type = typ
		out.Val = ir.Raw{Bytes: append(raw.Bytes, pb.Marshal(&x)...)}
		return out, nil
	}
	out.Extra = marshalRest(&x)
	return out, nil
}

// attrValue takes the value out of x, a copy of a.
func (r *reader) attrValue(typ pb.AttributeType, a, x *pb.AttributeProto, outer *scope) (any, error) {
	switch typ {
	case pb.AttributeType_FLOAT:
		x.F = 0
		x.Has.Clear(2)
		return a.F, nil
	case pb.AttributeType_INT:
		x.I = 0
		x.Has.Clear(3)
		return a.I, nil
	case pb.AttributeType_STRING:
		x.S = nil
		x.Has.Clear(4)
		return string(a.S), nil
	case pb.AttributeType_FLOATS:
		x.Floats = nil
		return append([]float32{}, a.Floats...), nil
	case pb.AttributeType_INTS:
		x.Ints = nil
		return append([]int64{}, a.Ints...), nil
	case pb.AttributeType_STRINGS:
		x.Strings = nil
		out := []string{}
		for _, s := range a.Strings {
			out = append(out, string(s))
		}
		return out, nil
	case pb.AttributeType_TENSOR, pb.AttributeType_TENSORS:
		return r.attrTensors(typ, a, x)
	case pb.AttributeType_GRAPH, pb.AttributeType_GRAPHS:
		return r.attrGraphs(typ, a, x, outer)
	case pb.AttributeType_TYPE_PROTO, pb.AttributeType_TYPE_PROTOS:
		return r.attrTypes(typ, a, x)
	case pb.AttributeType_SPARSE_TENSOR, pb.AttributeType_SPARSE_TENSORS:
		return ir.Raw{}, nil
	case pb.AttributeType_UNDEFINED:
		return nil, bad("attribute %q has no type", a.Name)
	}
	return nil, unsupported("attribute %q has the type number %d, which is not one of ONNX's", a.Name, typ)
}

func (r *reader) attrTensors(typ pb.AttributeType, a, x *pb.AttributeProto) (any, error) {
	list := a.Tensors
	if typ == pb.AttributeType_TENSOR {
		list = []*pb.TensorProto{a.T}
		x.T = nil
	} else {
		x.Tensors = nil
	}
	out := []*tensor.Tensor{}
	for _, p := range list {
		if p == nil {
			return nil, bad("attribute %q has no tensor", a.Name)
		}
		t, err := r.tensor(p)
		if err != nil {
			return nil, prefixed(err, "attribute %q", a.Name)
		}
		out = append(out, t)
	}
	if typ == pb.AttributeType_TENSOR {
		return out[0], nil
	}
	return out, nil
}

func (r *reader) attrGraphs(typ pb.AttributeType, a, x *pb.AttributeProto, outer *scope) (any, error) {
	list := a.Graphs
	if typ == pb.AttributeType_GRAPH {
		list = []*pb.GraphProto{a.G}
		x.G = nil
	} else {
		x.Graphs = nil
	}
	out := []*ir.Graph{}
	for _, p := range list {
		if p == nil {
			return nil, bad("attribute %q has no graph", a.Name)
		}
		g, err := r.graph(p, outer)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	if typ == pb.AttributeType_GRAPH {
		return out[0], nil
	}
	return out, nil
}

func (r *reader) attrTypes(typ pb.AttributeType, a, x *pb.AttributeProto) (any, error) {
	list := a.TypeProtos
	if typ == pb.AttributeType_TYPE_PROTO {
		list = []*pb.TypeProto{a.Tp}
		x.Tp = nil
	} else {
		x.TypeProtos = nil
	}
	out := []ir.Type{}
	for _, p := range list {
		t, err := typeIn(p)
		if err != nil {
			return nil, prefixed(err, "attribute %q", a.Name)
		}
		out = append(out, t)
	}
	if typ == pb.AttributeType_TYPE_PROTO {
		return out[0], nil
	}
	return out, nil
}

// attr converts back.
func (w *writer) attr(a ir.Attr) (*pb.AttributeProto, error) {
	p := &pb.AttributeProto{}
	raw, isRaw := a.Val.(ir.Raw)
	rest := a.Extra
	if isRaw {
		rest = raw.Bytes
	}
	if err := pb.Unmarshal(rest, p); err != nil {
		return nil, bad("attribute %q: its kept wire fields are damaged: %w", a.Name, err)
	}
	p.Name = a.Name
	if a.Doc != "" {
		p.DocString = a.Doc
	}
	if isRaw {
		return p, nil
	}
	return p, w.attrValue(a, p)
}

func (w *writer) attrValue(a ir.Attr, p *pb.AttributeProto) error {
	var err error
	switch v := a.Val.(type) {
	case float32:
		p.Type, p.F = pb.AttributeType_FLOAT, v
		p.Has.Set(2)
	case int64:
		p.Type, p.I = pb.AttributeType_INT, v
		p.Has.Set(3)
	case string:
		p.Type, p.S = pb.AttributeType_STRING, []byte(v)
		p.Has.Set(4)
	case []float32:
		p.Type, p.Floats = pb.AttributeType_FLOATS, v
	case []int64:
		p.Type, p.Ints = pb.AttributeType_INTS, v
	case []string:
		p.Type = pb.AttributeType_STRINGS
		for _, s := range v {
			p.Strings = append(p.Strings, []byte(s))
		}
	case *tensor.Tensor:
		p.Type = pb.AttributeType_TENSOR
		p.T, err = w.tensor("", v)
	case []*tensor.Tensor:
		p.Type = pb.AttributeType_TENSORS
		p.Tensors, err = each(v, func(t *tensor.Tensor) (*pb.TensorProto, error) { return w.tensor("", t) })
	case *ir.Graph:
		p.Type = pb.AttributeType_GRAPH
		p.G, err = w.graph(v)
	case []*ir.Graph:
		p.Type = pb.AttributeType_GRAPHS
		p.Graphs, err = each(v, w.graph)
	case ir.Type:
		p.Type, p.Tp = pb.AttributeType_TYPE_PROTO, typeOrEmpty(v)
	case []ir.Type:
		p.Type = pb.AttributeType_TYPE_PROTOS
		for _, t := range v {
			p.TypeProtos = append(p.TypeProtos, typeOrEmpty(t))
		}
	case ir.Ref:
		p.Type, p.RefAttrName = pb.AttributeType(v.Kind), v.Name
	default:
		return bad("attribute %q holds a %T, which ONNX cannot say", a.Name, a.Val)
	}
	return err
}

func typeOrEmpty(t ir.Type) *pb.TypeProto {
	if p := typeOut(t); p != nil {
		return p
	}
	return &pb.TypeProto{}
}

// each maps a list until f fails.
func each[A, B any](list []A, f func(A) (B, error)) ([]B, error) {
	var out []B
	for _, a := range list {
		b, err := f(a)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
