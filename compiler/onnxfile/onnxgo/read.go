package onnxgo

import (
	"fmt"
	"os"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/owulveryck/onnx-go"
	gtensor "gorgonia.org/tensor"
)

// Read reads a model with onnx-go. What onnx-go would drop or misread in
// silence is refused.
func Read(path string) (*onnxfile.Model, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot be read: %w", err).InFile(path)
	}
	m, err := ReadBytes(b)
	if f := fault.As(err); f != nil && f.File == "" {
		f.File = path
	}
	if m != nil {
		m.Path = path
	}
	return m, err
}

// ReadBytes reads a model from memory, as Read does.
func ReadBytes(b []byte) (m *onnxfile.Model, err error) {
	head := &pb.ModelProto{}
	if err := pb.Unmarshal(b, head); err != nil {
		return nil, fault.New(fault.BadModel, "not a readable ONNX model: %w", err)
	}
	if err := checkHead(head); err != nil {
		return nil, err
	}
	rec := newRecorder()
	gm := onnx.NewModel(rec)
	if err := decode(gm, b); err != nil {
		return nil, fault.New(fault.Unsupported, "onnx-go cannot read the model: %w", err)
	}
	g, err := modelGraph(rec, gm, head.Graph)
	if err != nil {
		return nil, err
	}
	if err := ir.Verify(g); err != nil {
		return nil, fault.New(fault.BadModel, "%w", err)
	}
	m = onnxfile.New(g, opset(head))
	m.IRVersion, m.Producer, m.ProducerVersion = head.IrVersion, head.ProducerName, head.ProducerVersion
	return m, nil
}

// decode runs onnx-go's decoder, which panics on some damaged files.
func decode(m *onnx.Model, b []byte) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("its decoder panics: %v", e)
		}
	}()
	return m.UnmarshalBinary(b)
}

// checkHead refuses what onnx-go would lose without a word.
func checkHead(m *pb.ModelProto) error {
	lost := func(format string, args ...any) error {
		return fault.New(fault.Unsupported, "onnx-go cannot read the model: it drops "+format, args...).
			Hint("use lathe's own reader")
	}
	switch {
	case m.Graph == nil:
		return fault.New(fault.BadModel, "the file holds no graph")
	case opset(m) == 0:
		return lost("domains, and the model imports none of ONNX's own operators")
	case len(m.Functions) > 0:
		return lost("functions")
	case len(m.Graph.SparseInitializer) > 0:
		return lost("sparse initializers")
	}
	tensors := m.Graph.Initializer
	for _, n := range m.Graph.Node {
		if n.Domain != "" && n.Domain != "ai.onnx" {
			return lost("the domain of operator %s.%s", n.Domain, n.OpType)
		}
		for _, a := range n.Attribute {
			if a.T != nil {
				tensors = append(tensors, a.T)
			}
		}
	}
	for _, t := range tensors {
		switch {
		case t.DataLocation == pb.DataLocation_EXTERNAL:
			return lost("external data (tensor %q)", t.Name)
		case t.DataType == int32(pb.DataType_BOOL) && len(t.RawData) > 0:
			return lost("the values of the boolean tensor %q", t.Name)
		}
	}
	return nil
}

// opset is the version of ONNX's own operators that the file imports.
func opset(m *pb.ModelProto) int64 {
	for _, o := range m.OpsetImport {
		if o.Domain == "" || o.Domain == "ai.onnx" {
			return o.Version
		}
	}
	return 0
}

func hasSymbolic(v *pb.ValueInfoProto) bool {
	if v.Type == nil || v.Type.TensorType == nil || v.Type.TensorType.Shape == nil {
		return false
	}
	for _, d := range v.Type.TensorType.Shape.Dim {
		if !d.Has.Has(1) {
			return true
		}
	}
	return false
}

// modelGraph puts inputs, constants, nodes and outputs together. onnx-go makes
// a node anew where a name is described twice; operations read the last one.
func modelGraph(rec *recorder, gm *onnx.Model, head *pb.GraphProto) (*ir.Graph, error) {
	b := newBuilder(rec)
	g := &ir.Graph{Name: head.Name}
	inits := map[string]bool{}
	for _, t := range head.Initializer {
		inits[t.Name] = true
	}
	find := func(name string) (*node, error) {
		n, ok := gm.GetNodeByName(name)
		if !ok {
			return nil, fault.New(fault.BadModel, "onnx-go finds no value %q", name)
		}
		return n.(*node), nil
	}
	for _, p := range head.Input {
		n, err := find(p.Name)
		if err != nil {
			return nil, err
		}
		v := b.value(n)
		switch {
		case inits[p.Name]:
		case hasSymbolic(p):
			// onnx-go drops such dimensions, and with them the rank.
			if v.Type, err = onnxfile.TypeOf(p.Type); err != nil {
				return nil, err
			}
		default:
			v.Type = typeOf(n.t)
		}
		g.Inputs = append(g.Inputs, v)
	}
	for _, p := range head.Initializer {
		n, err := find(p.Name)
		if err != nil {
			return nil, err
		}
		t, err := fromGorgonia(n.t)
		if err != nil {
			return nil, err
		}
		v := b.value(n)
		v.Const, v.Type = t, ir.TensorType(t.DType, t.Shape...)
		g.Inits = append(g.Inits, v)
	}
	var err error
	if g.Nodes, err = b.nodes(); err != nil {
		return nil, err
	}
	for _, p := range head.Output {
		n, err := find(p.Name)
		if err != nil {
			return nil, err
		}
		g.Outputs = append(g.Outputs, b.value(n))
	}
	return g, nil
}

// typeOf is the type of a placeholder; nil has none.
func typeOf(t gtensor.Tensor) ir.Type {
	if t == nil {
		return ir.Type{}
	}
	d, ok := dtypes[t.Dtype()]
	if !ok {
		return ir.Type{}
	}
	return ir.TensorType(d, t.Shape()...)
}
