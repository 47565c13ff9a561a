package onnxfile

import (
	"math"
	"unsafe"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tensor converts a TensorProto and remembers how it was stored.
func (r *reader) tensor(p *pb.TensorProto) (*tensor.Tensor, error) {
	d, err := dtypeIn(p.DataType)
	if err != nil {
		return nil, err
	}
	if d == tensor.Invalid {
		return nil, bad("the tensor has no element type")
	}
	shape, n, err := dimsIn(p.Dims)
	if err != nil {
		return nil, err
	}
	if p.Segment != nil {
		return nil, unsupported("the tensor is stored in segments")
	}
	t, how, err := r.tensorData(p, d, shape, n)
	if err != nil {
		return nil, err
	}
	r.m.tensors[t] = &tensorForm{head: tensorHead(p), storage: how}
	return t, nil
}

func dimsIn(dims []int64) ([]int, int, error) {
	shape := make([]int, len(dims))
	for i, v := range dims {
		if v < 0 || v > math.MaxInt {
			return nil, 0, bad("dimension %d is %d", i, v)
		}
		shape[i] = int(v)
	}
	n, err := tensor.Count(shape)
	if err != nil {
		return nil, 0, bad("%w", err)
	}
	return shape, n, nil
}

func (r *reader) tensorData(p *pb.TensorProto, d tensor.DType, shape []int, n int) (*tensor.Tensor, storage, error) {
	if p.DataLocation == pb.DataLocation_EXTERNAL {
		b, err := r.external(p, d, n)
		if err != nil {
			return nil, 0, err
		}
		t, err := tensor.FromBytes(d, shape, b)
		return t, inExternal, classed(err)
	}
	if d == tensor.String {
		t, err := stringsIn(p, shape)
		return t, inTyped, err
	}
	if typed := typedLen(p); typed > 0 || !p.Has.Has(9) && n == 0 {
		if len(p.RawData) > 0 {
			return nil, 0, bad("the tensor has both raw and typed data")
		}
		t, err := typedIn(p, d, shape, n)
		return t, inTyped, err
	}
	t, err := tensor.FromBytes(d, shape, p.RawData)
	return t, inRaw, classed(err)
}

func classed(err error) error {
	if err == nil {
		return nil
	}
	return bad("%w", err)
}

func typedLen(p *pb.TensorProto) int {
	return len(p.FloatData) + len(p.Int32Data) + len(p.Int64Data) + len(p.DoubleData) + len(p.Uint64Data) + len(p.StringData)
}

func stringsIn(p *pb.TensorProto, shape []int) (*tensor.Tensor, error) {
	if len(p.RawData) > 0 {
		return nil, bad("the string tensor has raw data")
	}
	s := make([]string, len(p.StringData))
	for i, b := range p.StringData {
		s[i] = string(b)
	}
	t, err := tensor.FromStrings(shape, s)
	return t, classed(err)
}

// typedIn reads the typed data fields. Which field holds which element type is
// the table of TensorProto in onnx.proto.
func typedIn(p *pb.TensorProto, d tensor.DType, shape []int, n int) (*tensor.Tensor, error) {
	var raw []byte
	have := -1
	switch d {
	case tensor.F32, tensor.C64:
		raw, have = bytesOf(p.FloatData), len(p.FloatData)
	case tensor.F64, tensor.C128:
		raw, have = bytesOf(p.DoubleData), len(p.DoubleData)
	case tensor.I64:
		raw, have = bytesOf(p.Int64Data), len(p.Int64Data)
	case tensor.U64:
		raw, have = bytesOf(p.Uint64Data), len(p.Uint64Data)
	case tensor.U32:
		return uint32In(p, shape, n)
	case tensor.I32:
		raw, have = bytesOf(p.Int32Data), len(p.Int32Data)
	default:
		return narrowIn(p, d, shape, n)
	}
	want := n
	if d.Kind() == tensor.KindComplex {
		want = 2 * n
	}
	if have != want || typedLen(p) != have {
		return nil, wrongCount(p, d, shape, want)
	}
	t, err := tensor.FromBytes(d, shape, raw)
	return t, classed(err)
}

func wrongCount(p *pb.TensorProto, d tensor.DType, shape []int, want int) error {
	return bad("%d values in the typed data fields, shape %s of %s needs %d in the field for that type",
		typedLen(p), tensor.ShapeString(shape), d.ONNX(), want)
}

func uint32In(p *pb.TensorProto, shape []int, n int) (*tensor.Tensor, error) {
	if len(p.Uint64Data) != n || typedLen(p) != n {
		return nil, wrongCount(p, tensor.U32, shape, n)
	}
	t := tensor.New(tensor.U32, shape...)
	for i, v := range p.Uint64Data {
		if v > math.MaxUint32 {
			return nil, bad("value %d of the tensor is %d, beyond uint32", i, v)
		}
		tensor.As[uint32](t)[i] = uint32(v)
	}
	return t, nil
}

// narrowIn reads types of at most 16 bits from int32_data: one value each for
// 8 and 16 bits, one packed byte each for 4 and 2 bits.
func narrowIn(p *pb.TensorProto, d tensor.DType, shape []int, n int) (*tensor.Tensor, error) {
	want, width := n, d.Bits()
	if width < 8 {
		want, width = d.Bytes(n), 8
	}
	if len(p.Int32Data) != want || typedLen(p) != want {
		return nil, wrongCount(p, d, shape, want)
	}
	raw := make([]byte, want*width/8)
	for i, v := range p.Int32Data {
		if int64(v) < -1<<(width-1) || int64(v) >= 1<<width {
			return nil, bad("value %d of the tensor is %d, beyond %s", i, v, d.ONNX())
		}
		if width == 16 {
			raw[2*i], raw[2*i+1] = byte(v), byte(v>>8)
		} else {
			raw[i] = byte(v)
		}
	}
	t, err := tensor.FromBytes(d, shape, raw)
	return t, classed(err)
}

// bytesOf views numbers as their little-endian bytes.
func bytesOf[T float32 | float64 | int32 | int64 | uint64](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var z T
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(z)))
}

// tensorHead is a TensorProto without its data.
func tensorHead(p *pb.TensorProto) *pb.TensorProto {
	h := *p
	h.Dims, h.FloatData, h.Int32Data, h.StringData, h.Int64Data = nil, nil, nil, nil, nil
	h.RawData, h.DoubleData, h.Uint64Data, h.ExternalData = nil, nil, nil, nil
	h.Has.Clear(9)
	return &h
}

// maxDense bounds the tensor that a sparse one is expanded to, in elements.
const maxDense = 1 << 28

// dense expands a sparse tensor.
func (r *reader) dense(p *pb.SparseTensorProto) (*tensor.Tensor, error) {
	if p.Values == nil || p.Indices == nil {
		return nil, bad("the sparse tensor lacks values or indices")
	}
	vals, err := r.tensor(p.Values)
	if err != nil {
		return nil, err
	}
	idx, err := r.tensor(p.Indices)
	if err != nil {
		return nil, err
	}
	shape, n, err := dimsIn(p.Dims)
	if err != nil {
		return nil, err
	}
	nnz := vals.Len()
	byAxis := len(idx.Shape) == 2
	if idx.DType != tensor.I64 || len(idx.Shape) == 0 || idx.Shape[0] != nnz || byAxis && idx.Shape[1] != len(shape) || len(idx.Shape) > 2 {
		return nil, bad("the sparse tensor has %s indices for %s values of shape %s", idx, vals, tensor.ShapeString(shape))
	}
	if n > maxDense || vals.DType.Size() == 0 {
		return nil, unsupported("a sparse tensor of %s of shape %s is not expanded", vals.DType.ONNX(), tensor.ShapeString(shape))
	}
	out := tensor.New(vals.DType, shape...)
	size := vals.DType.Size()
	flat := tensor.As[int64](idx)
	for i := range nnz {
		at := int64(0)
		if !byAxis {
			at = flat[i]
		} else {
			for a, dim := range shape {
				k := flat[i*len(shape)+a]
				if k < 0 || k >= int64(dim) {
					return nil, bad("index %d of the sparse tensor is outside its shape", i)
				}
				at = at*int64(dim) + k
			}
		}
		if at < 0 || at >= int64(n) {
			return nil, bad("index %d of the sparse tensor is outside its shape", i)
		}
		copy(out.Bytes()[int(at)*size:][:size], vals.Bytes()[i*size:])
	}
	return out, nil
}

// Dense expands the sparse tensor that an uninterpreted attribute holds (ONNX
// Constant, sparse_value).
func Dense(raw ir.Raw) (*tensor.Tensor, error) {
	a := &pb.AttributeProto{}
	if err := pb.Unmarshal(raw.Bytes, a); err != nil {
		return nil, bad("the attribute is damaged: %w", err)
	}
	if a.SparseTensor == nil {
		return nil, bad("the attribute holds no sparse tensor")
	}
	return newReader("", Options{}).dense(a.SparseTensor)
}
