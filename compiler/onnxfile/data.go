package onnxfile

import (
	"bytes"
	"io"
	"math"
	"path/filepath"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// ReadTensorPB reads one recorded value (input_K.pb, output_K.pb of a test data
// set). The file does not say whether it holds a tensor, a sequence, an
// optional or a map: want, the declared type of the graph's input or output,
// does; FormNone means a tensor.
func ReadTensorPB(path string, want ir.Type) (*ir.Data, error) {
	mp, err := openMapped(fileSystem, path)
	if err != nil {
		return nil, err
	}
	// The file may be small and short-lived: what is read does not depend on
	// the mapping.
	b := bytes.Clone(mp.data)
	if err := mp.unmap(); err != nil {
		return nil, err
	}
	d, err := DecodeData(b, want, Options{Dir: filepath.Dir(path)})
	return d, inFile(err, path)
}

// DecodeData reads one recorded value from memory, as ReadTensorPB does.
func DecodeData(b []byte, want ir.Type, opt Options) (*ir.Data, error) {
	r := newReader("", opt)
	switch want.Form {
	case ir.FormSequence:
		p := &pb.SequenceProto{}
		if err := pb.Unmarshal(b, p); err != nil {
			return nil, notReadable(err)
		}
		return r.sequence(p, want.Elem)
	case ir.FormOptional:
		return r.optionalOrContent(b, want)
	case ir.FormMap:
		p := &pb.MapProto{}
		if err := pb.Unmarshal(b, p); err != nil {
			return nil, notReadable(err)
		}
		return r.mapData(p, want.Elem)
	case ir.FormSparse:
		p := &pb.SparseTensorProto{}
		if err := pb.Unmarshal(b, p); err != nil {
			return nil, notReadable(err)
		}
		return tensorData(r.dense(p))
	case ir.FormOpaque:
		return nil, unsupported("a value of the opaque type %s cannot be read", want)
	}
	p := &pb.TensorProto{}
	if err := pb.Unmarshal(b, p); err != nil {
		return nil, notReadable(err)
	}
	return tensorData(r.tensor(p))
}

func notReadable(err error) error { return bad("not readable as recorded ONNX data: %w", err) }

func tensorData(t *tensor.Tensor, err error) (*ir.Data, error) {
	if err != nil {
		return nil, err
	}
	return ir.TensorData(t), nil
}

// optionalOrContent reads an OptionalProto; ONNX's own test data hold the bare
// content where an optional input is fed with a value. The two look alike on
// the wire, so an OptionalProto must be of the declared kind and hold nothing
// else.
func (r *reader) optionalOrContent(b []byte, want ir.Type) (*ir.Data, error) {
	p := &pb.OptionalProto{}
	if err := pb.Unmarshal(b, p); err == nil && isOptional(p, want.Elem) {
		return r.optional(p, want.Elem)
	}
	if want.Elem == nil {
		return nil, bad("the optional's element type is not known")
	}
	d, err := DecodeData(b, *want.Elem, r.opt)
	if err != nil {
		return nil, err
	}
	return ir.OptionalData(want.Elem, d), nil
}

func isOptional(p *pb.OptionalProto, elem *ir.Type) bool {
	kind := pb.ElementKind(p.ElemType)
	if want := kindOf(nil, elem); len(p.Unknown) > 0 || want != 0 && kind != 0 && kind != want {
		return false
	}
	for k, set := range map[pb.ElementKind]bool{
		pb.ElementKind_TENSOR: p.TensorValue != nil, pb.ElementKind_SPARSE_TENSOR: p.SparseTensorValue != nil,
		pb.ElementKind_SEQUENCE: p.SequenceValue != nil, pb.ElementKind_MAP: p.MapValue != nil,
		pb.ElementKind_OPTIONAL: p.OptionalValue != nil,
	} {
		if set && k != kind {
			return false
		}
	}
	return true
}

func (r *reader) sequence(p *pb.SequenceProto, elem *ir.Type) (*ir.Data, error) {
	var inner *ir.Type
	if elem != nil {
		inner = elem.Elem
	}
	var items []*ir.Data
	add := func(d *ir.Data, err error) error {
		items = append(items, d)
		return err
	}
	var err error
	for _, x := range p.TensorValues {
		if err = add(tensorData(r.tensor(x))); err != nil {
			return nil, err
		}
	}
	for _, x := range p.SparseTensorValues {
		if err = add(tensorData(r.dense(x))); err != nil {
			return nil, err
		}
	}
	for _, x := range p.SequenceValues {
		if err = add(r.sequence(x, inner)); err != nil {
			return nil, err
		}
	}
	for _, x := range p.MapValues {
		if err = add(r.mapData(x, inner)); err != nil {
			return nil, err
		}
	}
	for _, x := range p.OptionalValues {
		if err = add(r.optional(x, inner)); err != nil {
			return nil, err
		}
	}
	return ir.SequenceData(elem, items...), nil
}

func (r *reader) optional(p *pb.OptionalProto, elem *ir.Type) (*ir.Data, error) {
	var inner *ir.Type
	if elem != nil {
		inner = elem.Elem
	}
	var d *ir.Data
	var err error
	switch pb.ElementKind(p.ElemType) {
	case pb.ElementKind_UNDEFINED:
	case pb.ElementKind_TENSOR:
		if p.TensorValue != nil {
			d, err = tensorData(r.tensor(p.TensorValue))
		}
	case pb.ElementKind_SPARSE_TENSOR:
		if p.SparseTensorValue != nil {
			d, err = tensorData(r.dense(p.SparseTensorValue))
		}
	case pb.ElementKind_SEQUENCE:
		if p.SequenceValue != nil {
			d, err = r.sequence(p.SequenceValue, inner)
		}
	case pb.ElementKind_MAP:
		if p.MapValue != nil {
			d, err = r.mapData(p.MapValue, inner)
		}
	case pb.ElementKind_OPTIONAL:
		if p.OptionalValue != nil {
			d, err = r.optional(p.OptionalValue, inner)
		}
	default:
		err = bad("the optional has the element kind %d", p.ElemType)
	}
	if err != nil {
		return nil, err
	}
	return ir.OptionalData(elem, d), nil
}

func (r *reader) mapData(p *pb.MapProto, elem *ir.Type) (*ir.Data, error) {
	kt, err := dtypeIn(p.KeyType)
	if err != nil {
		return nil, err
	}
	d := &ir.Data{Form: ir.FormMap, Elem: elem}
	switch {
	case kt == tensor.String:
		s := make([]string, len(p.StringKeys))
		for i, k := range p.StringKeys {
			s[i] = string(k)
		}
		d.Keys, err = tensor.FromStrings([]int{len(s)}, s)
	case kt.IsInteger() && kt.Bits() >= 8:
		d.Keys = tensor.New(kt, len(p.Keys))
		for i, k := range p.Keys {
			d.Keys.SetInt(i, k)
		}
	default:
		err = bad("the map has keys of %s", kt.ONNX())
	}
	if err != nil {
		return nil, err
	}
	vals := p.Values
	if vals == nil {
		vals = &pb.SequenceProto{}
	}
	seq, err := r.sequence(vals, elem)
	if err != nil {
		return nil, err
	}
	if len(seq.Items) != d.Keys.Len() {
		return nil, bad("the map has %d keys and %d values", d.Keys.Len(), len(seq.Items))
	}
	d.Items = seq.Items
	return d, nil
}

// WriteTensorPB writes one value as ReadTensorPB reads it.
func WriteTensorPB(path, name string, d *ir.Data) error {
	p, err := dataOut(name, d)
	if err != nil {
		return inFile(err, path)
	}
	if pb.Size(p) > math.MaxInt32 {
		return bad("the value takes more than the 2 GB that a file of recorded data may hold").InFile(path)
	}
	return atomicfile.Write(path, func(f io.Writer) error { return pb.Write(f, p) })
}

// EncodeData is WriteTensorPB into memory.
func EncodeData(name string, d *ir.Data) ([]byte, error) {
	p, err := dataOut(name, d)
	if err != nil {
		return nil, err
	}
	return pb.Marshal(p), nil
}

func dataOut(name string, d *ir.Data) (pb.Message, error) {
	switch {
	case d == nil:
		return nil, bad("there is no value to write")
	case d.Form == ir.FormTensor && d.Tensor != nil:
		return tensorOut(name, d.Tensor)
	case d.Form == ir.FormSequence:
		return sequenceOut(name, d)
	case d.Form == ir.FormMap && d.Keys != nil:
		return mapOut(name, d)
	case d.Form == ir.FormOptional:
		return optionalOut(name, d)
	}
	return nil, bad("a value of type %s cannot be recorded", d.Type())
}

func tensorOut(name string, t *tensor.Tensor) (*pb.TensorProto, error) {
	return (&writer{m: &Model{}}).tensor(name, t)
}

// kindOf is the element kind of a sequence or optional, by its first element
// or else by its declared type.
func kindOf(first *ir.Data, elem *ir.Type) pb.ElementKind {
	form := ir.FormNone
	if first != nil {
		form = first.Form
	} else if elem != nil {
		form = elem.Form
	}
	switch form {
	case ir.FormTensor:
		return pb.ElementKind_TENSOR
	case ir.FormSparse:
		return pb.ElementKind_SPARSE_TENSOR
	case ir.FormSequence:
		return pb.ElementKind_SEQUENCE
	case ir.FormMap:
		return pb.ElementKind_MAP
	case ir.FormOptional:
		return pb.ElementKind_OPTIONAL
	}
	return pb.ElementKind_UNDEFINED
}

func sequenceOut(name string, d *ir.Data) (*pb.SequenceProto, error) {
	p := &pb.SequenceProto{Name: name}
	var first *ir.Data
	if len(d.Items) > 0 {
		first = d.Items[0]
	}
	p.ElemType = int32(kindOf(first, d.Elem))
	p.Has.Set(2)
	for i, x := range d.Items {
		if x == nil || x.Form != first.Form {
			return nil, bad("element %d of the sequence is not of the kind of the first", i)
		}
		q, err := dataOut("", x)
		if err != nil {
			return nil, err
		}
		switch q := q.(type) {
		case *pb.TensorProto:
			p.TensorValues = append(p.TensorValues, q)
		case *pb.SequenceProto:
			p.SequenceValues = append(p.SequenceValues, q)
		case *pb.MapProto:
			p.MapValues = append(p.MapValues, q)
		case *pb.OptionalProto:
			p.OptionalValues = append(p.OptionalValues, q)
		}
	}
	return p, nil
}

func optionalOut(name string, d *ir.Data) (*pb.OptionalProto, error) {
	p := &pb.OptionalProto{Name: name, ElemType: int32(kindOf(d.Some, d.Elem))}
	p.Has.Set(2)
	if d.Some == nil {
		return p, nil
	}
	q, err := dataOut("", d.Some)
	switch q := q.(type) {
	case *pb.TensorProto:
		p.TensorValue = q
	case *pb.SequenceProto:
		p.SequenceValue = q
	case *pb.MapProto:
		p.MapValue = q
	case *pb.OptionalProto:
		p.OptionalValue = q
	}
	return p, err
}

func mapOut(name string, d *ir.Data) (*pb.MapProto, error) {
	p := &pb.MapProto{Name: name, KeyType: int32(d.Keys.DType)}
	if d.Keys.DType == tensor.String {
		for _, s := range d.Keys.Strings() {
			p.StringKeys = append(p.StringKeys, []byte(s))
		}
	} else {
		for i := range d.Keys.Len() {
			p.Keys = append(p.Keys, d.Keys.Int(i))
		}
	}
	var err error
	p.Values, err = sequenceOut("", &ir.Data{Form: ir.FormSequence, Items: d.Items, Elem: d.Elem})
	return p, err
}
