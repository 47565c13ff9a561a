package onnxfile

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxDim bounds one dimension of a type: more is a mistake or an attack.
const maxDim = 1 << 40

func dtypeIn(n int32) (tensor.DType, error) {
	if n == 0 {
		return tensor.Invalid, nil
	}
	if n < 0 || n > 255 || !tensor.DType(n).Valid() {
		return tensor.Invalid, unsupported("element type number %d is not one of ONNX's", n)
	}
	return tensor.DType(n), nil
}

// TypeOf converts the wire form of a type; nil gives FormNone.
func TypeOf(p *pb.TypeProto) (ir.Type, error) { return typeIn(p) }

// typeIn converts a type; nil gives FormNone.
func typeIn(p *pb.TypeProto) (ir.Type, error) {
	t := ir.Type{}
	var err error
	if p == nil {
		return t, nil
	}
	t.Denotation = p.Denotation
	elem := func(form ir.Form, e *pb.TypeProto) error {
		t.Form = form
		if e == nil {
			return nil
		}
		et, err := typeIn(e)
		t.Elem = &et
		return err
	}
	switch {
	case p.TensorType != nil:
		t.Form = ir.FormTensor
		err = tensorTypeIn(&t, p.TensorType)
	case p.SparseTensorType != nil:
		t.Form = ir.FormSparse
		err = tensorTypeIn(&t, p.SparseTensorType)
	case p.SequenceType != nil:
		err = elem(ir.FormSequence, p.SequenceType.ElemType)
	case p.OptionalType != nil:
		err = elem(ir.FormOptional, p.OptionalType.ElemType)
	case p.MapType != nil:
		if t.Key, err = dtypeIn(p.MapType.KeyType); err == nil {
			err = elem(ir.FormMap, p.MapType.ValueType)
		}
	case p.OpaqueType != nil:
		t.Form = ir.FormOpaque
		t.Opaque = [2]string{p.OpaqueType.Domain, p.OpaqueType.Name}
	}
	return t, err
}

func tensorTypeIn(t *ir.Type, p *pb.TensorType) error {
	var err error
	if t.DType, err = dtypeIn(p.ElemType); err != nil {
		return err
	}
	if p.Shape == nil {
		return nil
	}
	t.HasRank = true
	t.Shape = make([]ir.Dim, len(p.Shape.Dim))
	known := []int{}
	for i, d := range p.Shape.Dim {
		t.Shape[i] = ir.Dim{N: -1, Param: d.DimParam, Denotation: d.Denotation}
		if d.Has.Has(1) && d.DimValue >= 0 && d.DimParam == "" {
			if d.DimValue >= maxDim {
				return bad("dimension %d is %d, which is not below 2^40", i, d.DimValue)
			}
			t.Shape[i].N = int(d.DimValue)
			if d.DimValue > 0 {
				known = append(known, int(d.DimValue))
			}
		}
	}
	if _, err := tensor.Count(known); err != nil {
		return bad("%w", err)
	}
	return nil
}

// typeOut converts back; FormNone gives nil.
func typeOut(t ir.Type) *pb.TypeProto {
	p := &pb.TypeProto{Denotation: t.Denotation}
	elem := func() *pb.TypeProto {
		if t.Elem == nil {
			return nil
		}
		return typeOut(*t.Elem)
	}
	switch t.Form {
	case ir.FormTensor:
		p.TensorType = tensorTypeOut(t)
	case ir.FormSparse:
		p.SparseTensorType = tensorTypeOut(t)
	case ir.FormSequence:
		p.SequenceType = &pb.SequenceType{ElemType: elem()}
	case ir.FormOptional:
		p.OptionalType = &pb.SequenceType{ElemType: elem()}
	case ir.FormMap:
		p.MapType = &pb.MapType{KeyType: int32(t.Key), ValueType: elem()}
	case ir.FormOpaque:
		p.OpaqueType = &pb.OpaqueType{Domain: t.Opaque[0], Name: t.Opaque[1]}
	default:
		if t.Denotation == "" {
			return nil
		}
	}
	return p
}

func tensorTypeOut(t ir.Type) *pb.TensorType {
	p := &pb.TensorType{ElemType: int32(t.DType)}
	p.Has.Set(1)
	if !t.HasRank {
		return p
	}
	p.Shape = &pb.TensorShapeProto{}
	for _, d := range t.Shape {
		x := &pb.Dimension{DimParam: d.Param, Denotation: d.Denotation}
		if d.N >= 0 {
			x.DimValue, x.DimParam = int64(d.N), ""
			x.Has.Set(1)
		}
		p.Shape.Dim = append(p.Shape.Dim, x)
	}
	return p
}
