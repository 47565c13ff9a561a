package ort

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// fromElement holds the element types that the library reports by another
// number than ONNX's. It takes ONNX's numbers when it makes tensors (release
// 1.30 hands them on unmapped), but answers with those of its own header, where
// the 8-bit exponent came last.
var fromElement = map[uintptr]tensor.DType{24: tensor.U2, 25: tensor.I2, 26: tensor.F8E8M0}

// value makes an OrtValue over t's own bytes, which stay pinned; strings are
// copied.
func (r *Runtime) value(p *dylib.Pins, t *tensor.Tensor) (uintptr, error) {
	e := uintptr(t.DType)
	dims := make([]int64, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = int64(d)
	}
	var v uintptr
	if t.DType != tensor.String {
		err := r.check(fnCreateTensorWithDataAsValue, r.memory, p.Bytes(t.Bytes()), uintptr(len(t.Bytes())),
			p.Int64s(dims), uintptr(len(dims)), e, p.Out(&v))
		return v, err
	}
	if err := r.check(fnCreateTensorAsValue, r.allocator, p.Int64s(dims), uintptr(len(dims)), e, p.Out(&v)); err != nil {
		return 0, err
	}
	words := make([]uintptr, t.Len())
	for i, s := range t.Strings() {
		words[i] = p.CString(s)
	}
	if err := r.check(fnFillStringTensor, v, p.Words(words), uintptr(len(words))); err != nil {
		r.call(fnReleaseValue, v)
		return 0, err
	}
	return v, nil
}

// onnxTypeTensor is ONNX_TYPE_TENSOR.
const onnxTypeTensor = 1

// tensor copies an OrtValue.
func (r *Runtime) tensor(v uintptr) (*tensor.Tensor, error) {
	if v == 0 {
		return nil, errors.New("the peer left it out")
	}
	var p dylib.Pins
	defer p.Release()
	var kind, info, data uintptr
	if err := r.check(fnGetValueType, v, p.Out(&kind)); err != nil {
		return nil, err
	}
	if uint32(kind) != onnxTypeTensor {
		return nil, errors.New("it is no tensor but a sequence, map or optional value")
	}
	if err := r.check(fnGetTensorTypeAndShape, v, p.Out(&info)); err != nil {
		return nil, err
	}
	d, shape, err := r.typeAndShape(info)
	r.call(fnReleaseTensorTypeAndShape, info)
	if err != nil {
		return nil, err
	}
	if _, err := tensor.Count(shape); err != nil {
		return nil, err
	}
	if d == tensor.String {
		return r.strings(v, shape)
	}
	out := tensor.New(d, shape...)
	if len(out.Bytes()) == 0 {
		return out, nil
	}
	if err := r.check(fnGetTensorMutableData, v, p.Out(&data)); err != nil {
		return nil, err
	}
	copy(out.Bytes(), unsafe.Slice((*byte)(dylib.Pointer(data)), len(out.Bytes())))
	return out, nil
}

func (r *Runtime) strings(v uintptr, shape []int) (*tensor.Tensor, error) {
	var p dylib.Pins
	defer p.Release()
	var size uintptr
	if err := r.check(fnGetStringTensorDataLength, v, p.Out(&size)); err != nil {
		return nil, err
	}
	n := tensor.Numel(shape)
	buf, at := make([]byte, size), make([]uintptr, n)
	if n > 0 {
		if err := r.check(fnGetStringTensorContent, v, p.Bytes(buf), size, p.Words(at), uintptr(n)); err != nil {
			return nil, err
		}
	}
	out := make([]string, n)
	for i := range out {
		end := size
		if i+1 < n {
			end = at[i+1]
		}
		out[i] = string(buf[at[i]:end])
	}
	return tensor.FromStrings(shape, out)
}

// typeAndShape reads an OrtTensorTypeAndShapeInfo; free dimensions are -1.
func (r *Runtime) typeAndShape(info uintptr) (tensor.DType, []int, error) {
	var p dylib.Pins
	defer p.Release()
	var e, rank uintptr
	if err := r.check(fnGetTensorElementType, info, p.Out(&e)); err != nil {
		return 0, nil, err
	}
	e = uintptr(uint32(e)) // a C enum: the upper half of the word is not written
	d, ok := fromElement[e]
	if !ok && e <= uintptr(tensor.F4E2M1) {
		d, ok = tensor.DType(e), true
	}
	if !ok {
		return 0, nil, fmt.Errorf("element type %d of the peer is unknown", e)
	}
	if err := r.check(fnGetDimensionsCount, info, p.Out(&rank)); err != nil {
		return 0, nil, err
	}
	dims := make([]int64, rank)
	if err := r.check(fnGetDimensions, info, p.Int64s(dims), rank); err != nil {
		return 0, nil, err
	}
	shape := make([]int, rank)
	for i, x := range dims {
		shape[i] = int(x)
	}
	return d, shape, nil
}
