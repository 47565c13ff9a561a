package onnxfile

import (
	"encoding/binary"
	"strconv"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tensor converts a tensor, stored as its file stored it; a new one is stored
// raw. An empty name keeps the name that it had.
func (w *writer) tensor(name string, t *tensor.Tensor) (*pb.TensorProto, error) {
	p := &pb.TensorProto{}
	how := inRaw
	if f := w.m.tensors[t]; f != nil && f.head != nil {
		*p = *f.head
		how = f.storage
	}
	if name != "" {
		p.Name = name
	}
	p.DataType = int32(t.DType)
	p.Dims = nil
	for _, d := range t.Shape {
		p.Dims = append(p.Dims, int64(d))
	}
	if how == inExternal {
		// A tensor of a file without an external one comes inside.
		p.DataLocation = 0
		p.Has.Clear(14)
		how = inRaw
		if w.ext != nil {
			return p, w.ext.add(p, t)
		}
	} else if w.ext != nil && w.ext.all && t.DType != tensor.String && len(t.Bytes()) >= w.ext.threshold {
		return p, w.ext.add(p, t)
	}
	switch {
	case t.DType == tensor.String:
		for _, s := range t.Strings() {
			p.StringData = append(p.StringData, []byte(s))
		}
	case how == inTyped:
		typedOut(p, t)
	default:
		p.RawData = t.Bytes()
		p.Has.Set(9)
	}
	return p, nil
}

// typedOut is the reverse of typedIn.
func typedOut(p *pb.TensorProto, t *tensor.Tensor) {
	n := t.Len()
	switch t.DType {
	case tensor.F32, tensor.C64:
		p.FloatData = viewAs[float32](t)
	case tensor.F64, tensor.C128:
		p.DoubleData = viewAs[float64](t)
	case tensor.I64:
		p.Int64Data = tensor.As[int64](t)
	case tensor.U64:
		p.Uint64Data = tensor.As[uint64](t)
	case tensor.U32:
		for _, v := range tensor.As[uint32](t) {
			p.Uint64Data = append(p.Uint64Data, uint64(v))
		}
	case tensor.I32:
		p.Int32Data = tensor.As[int32](t)
	case tensor.I16, tensor.I8:
		for i := range n {
			p.Int32Data = append(p.Int32Data, int32(t.Int(i)))
		}
	default:
		b := t.Bytes()
		if t.DType.Bits() == 16 {
			for ; len(b) > 0; b = b[2:] {
				p.Int32Data = append(p.Int32Data, int32(binary.LittleEndian.Uint16(b)))
			}
			return
		}
		for _, v := range b {
			p.Int32Data = append(p.Int32Data, int32(v))
		}
	}
}

// viewAs views complex numbers as the pairs they are stored as.
func viewAs[T float32 | float64](t *tensor.Tensor) []T {
	d, per := t.DType, 1
	switch d {
	case tensor.C64:
		d, per = tensor.F32, 2
	case tensor.C128:
		d, per = tensor.F64, 2
	}
	v, err := tensor.FromBytes(d, []int{t.Len() * per}, t.Bytes())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return tensor.As[T](v)
}

// externalOut collects the tensors that go into a data file.
type externalOut struct {
	location  string
	threshold int
	all       bool // new tensors too, not only those that lay outside before
	chunks    []chunk
	size      int64
	protos    []*pb.TensorProto
}

type chunk struct {
	offset int64
	data   []byte
}

// externalAlign is the alignment of tensors in a data file, so that they can
// be used where they are mapped.
const externalAlign = 4096

func (e *externalOut) add(p *pb.TensorProto, t *tensor.Tensor) error {
	off := (e.size + externalAlign - 1) / externalAlign * externalAlign
	b := t.Bytes()
	e.chunks = append(e.chunks, chunk{off, b})
	e.size = off + int64(len(b))
	p.DataLocation = pb.DataLocation_EXTERNAL
	p.ExternalData = []*pb.StringStringEntryProto{
		entry("location", e.location),
		entry("offset", strconv.FormatInt(off, 10)),
		entry("length", strconv.Itoa(len(b))),
	}
	e.protos = append(e.protos, p)
	return nil
}

func entry(k, v string) *pb.StringStringEntryProto {
	e := &pb.StringStringEntryProto{Key: k, Value: v}
	e.Has.Set(1)
	e.Has.Set(2)
	return e
}
