package conformance

import (
	"os"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// readRecord reads a recorded value of a declared type.
func readRecord(path string, t ir.Type) (*ir.Data, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot be read: %w", err).InFile(path)
	}
	d, err := recordIn(b, t)
	if err != nil {
		return nil, fault.New(fault.BadModel, "not a readable value: %w", err).InFile(path)
	}
	return d, nil
}

func recordIn(b []byte, t ir.Type) (*ir.Data, error) {
	switch t.Form {
	case ir.FormSequence:
		p := &pb.SequenceProto{}
		if err := pb.Unmarshal(b, p); err != nil {
			return nil, err
		}
		return sequenceIn(p, t.Elem)
	case ir.FormOptional:
		p := &pb.OptionalProto{}
		if err := pb.Unmarshal(b, p); err != nil {
			return nil, err
		}
		return optionalIn(p, t.Elem)
	}
	p := &pb.TensorProto{}
	if err := pb.Unmarshal(b, p); err != nil {
		return nil, err
	}
	return tensorIn(p)
}

func tensorIn(p *pb.TensorProto) (*ir.Data, error) {
	q := *p
	q.Name = "x"
	m := &pb.ModelProto{IrVersion: 10, OpsetImport: []*pb.OperatorSetIdProto{{Version: 21}}, Graph: &pb.GraphProto{Initializer: []*pb.TensorProto{&q}}}
	r, err := onnxfile.ReadBytes(pb.Marshal(m), onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	return ir.TensorData(r.Graph.Inits[0].Const), nil
}

func sequenceIn(p *pb.SequenceProto, elem *ir.Type) (*ir.Data, error) {
	s := ir.SequenceData(elem)
	add := func(d *ir.Data, err error) error {
		s.Items = append(s.Items, d)
		return err
	}
	for _, t := range p.TensorValues {
		if err := add(tensorIn(t)); err != nil {
			return nil, err
		}
	}
	for _, q := range p.SequenceValues {
		if err := add(sequenceIn(q, nil)); err != nil {
			return nil, err
		}
	}
	for _, q := range p.OptionalValues {
		if err := add(optionalIn(q, nil)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func optionalIn(p *pb.OptionalProto, elem *ir.Type) (*ir.Data, error) {
	o := ir.OptionalData(elem, nil)
	var err error
	switch {
	case p.TensorValue != nil:
		o.Some, err = tensorIn(p.TensorValue)
	case p.SequenceValue != nil:
		o.Some, err = sequenceIn(p.SequenceValue, nil)
	case p.OptionalValue != nil:
		o.Some, err = optionalIn(p.OptionalValue, nil)
	}
	return o, err
}
