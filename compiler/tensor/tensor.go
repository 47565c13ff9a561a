package tensor

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"strconv"
	"strings"
	"unsafe"
)

// Tensor is a dense row-major host tensor. Its bytes are little-endian and
// packed as in ONNX raw_data (two- and four-bit elements share bytes, low bits
// first). A Tensor is read-only once it is shared: its bytes may be a mapped
// file.
type Tensor struct {
	DType DType
	Shape []int
	data  []byte
	strs  []string
}

// MaxElements bounds a tensor's element count: more is a mistake or an attack.
const MaxElements = 1 << 40

// Count is the number of elements of a shape; an error if a dimension is
// negative or the product is beyond MaxElements.
func Count(shape []int) (int, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative dimension in shape %s", ShapeString(shape))
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > MaxElements {
			// A later zero makes the tensor empty, but nobody means that.
			return 0, fmt.Errorf("shape %s has more than 2^40 elements", ShapeString(shape))
		}
		n = lo
	}
	return int(n), nil
}

// Numel is the number of elements of a shape that was checked before.
func Numel(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// ShapeString prints a shape as [1x3x224x224]; a scalar is [].
func ShapeString(shape []int) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range shape {
		if i > 0 {
			b.WriteByte('x')
		}
		b.WriteString(strconv.Itoa(d))
	}
	b.WriteByte(']')
	return b.String()
}

// New makes a zeroed tensor. It panics on a shape that Count refuses.
func New(d DType, shape ...int) *Tensor {
	n, err := Count(shape)
	if err != nil {
		panic("BUG: tensor.New: " + err.Error())
	}
	t := &Tensor{DType: d, Shape: append([]int{}, shape...)}
	if d == String {
		t.strs = make([]string, n)
		return t
	}
	t.data = alignedBytes(d.Bytes(n))
	return t
}

// alignedBytes gives 8-byte aligned memory, so that typed views are legal.
func alignedBytes(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	w := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), n)
}

// unaligned reports a processor that reads words from any address: there the
// bytes of a mapped file are used as they lie.
const unaligned = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// FromBytes wraps packed little-endian bytes without copying them (they are
// copied if the processor needs them aligned to the element size and they are
// not).
func FromBytes(d DType, shape []int, raw []byte) (*Tensor, error) {
	n, err := Count(shape)
	if err != nil {
		return nil, err
	}
	if d == String || !d.Valid() {
		return nil, fmt.Errorf("element type %s has no raw bytes", d.ONNX())
	}
	if want := d.Bytes(n); len(raw) != want {
		return nil, fmt.Errorf("raw data has %d bytes, shape %s of %s needs %d", len(raw), ShapeString(shape), d.ONNX(), want)
	}
	if s := d.Size(); !unaligned && s > 1 && len(raw) > 0 && uintptr(unsafe.Pointer(&raw[0]))%uintptr(min(s, 8)) != 0 {
		c := alignedBytes(len(raw))
		copy(c, raw)
		raw = c
	}
	return &Tensor{DType: d, Shape: append([]int{}, shape...), data: raw}, nil
}

// FromStrings makes a string tensor.
func FromStrings(shape []int, s []string) (*Tensor, error) {
	n, err := Count(shape)
	if err != nil {
		return nil, err
	}
	if n != len(s) {
		return nil, fmt.Errorf("%d strings for shape %s", len(s), ShapeString(shape))
	}
	return &Tensor{DType: String, Shape: append([]int{}, shape...), strs: s}, nil
}

// Native is a Go type whose memory layout is that of an element type.
type Native interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

// Of makes a tensor from values; uint16 makes U16 (use Retype for F16, BF16).
func Of[T Native](v []T, shape ...int) *Tensor {
	if len(v) != Numel(shape) {
		panic(fmt.Sprintf("BUG: tensor.Of: %d values for shape %s", len(v), ShapeString(shape)))
	}
	t := New(dtypeOf[T](), shape...)
	copy(As[T](t), v)
	return t
}

// Wrap makes a tensor of values without copying them.
func Wrap[T Native](v []T, shape ...int) *Tensor {
	if len(v) != Numel(shape) {
		panic(fmt.Sprintf("BUG: tensor.Wrap: %d values for shape %s", len(v), ShapeString(shape)))
	}
	t := &Tensor{DType: dtypeOf[T](), Shape: append([]int{}, shape...), data: []byte{}}
	if len(v) > 0 {
		t.data = unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
	}
	return t
}

// Scalar makes a tensor of rank 0.
func Scalar[T Native](v T) *Tensor { return Of([]T{v}) }

func dtypeOf[T Native]() DType {
	var z T
	switch any(z).(type) {
	case float32:
		return F32
	case float64:
		return F64
	case int8:
		return I8
	case int16:
		return I16
	case int32:
		return I32
	case int64:
		return I64
	case uint8:
		return U8
	case uint16:
		return U16
	case uint32:
		return U32
	case uint64:
		return U64
	}
	return Bool
}

// As views the elements as a Go slice without copying. T must have the size of
// the element type: uint16 views F16 and BF16, uint8 views the 8-bit floats.
func As[T Native](t *Tensor) []T {
	var z T
	n := t.Len()
	if int(unsafe.Sizeof(z)) != t.DType.Size() {
		panic(fmt.Sprintf("BUG: tensor.As[%T] on %s", z, t.DType))
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&t.data[0])), n)
}

// Len is the number of elements.
func (t *Tensor) Len() int { return Numel(t.Shape) }

// Bytes is the packed little-endian storage, shared, not copied.
func (t *Tensor) Bytes() []byte { return t.data }

// Strings is the storage of a string tensor.
func (t *Tensor) Strings() []string { return t.strs }

// Reshaped shares the storage under another shape of the same element count.
func (t *Tensor) Reshaped(shape ...int) *Tensor {
	if Numel(shape) != t.Len() {
		panic(fmt.Sprintf("BUG: reshape %s to %s", ShapeString(t.Shape), ShapeString(shape)))
	}
	return &Tensor{DType: t.DType, Shape: append([]int{}, shape...), data: t.data, strs: t.strs}
}

// Retype shares the storage under another element type of the same width.
func (t *Tensor) Retype(d DType) *Tensor {
	if d.Bits() != t.DType.Bits() {
		panic(fmt.Sprintf("BUG: retype %s to %s", t.DType, d))
	}
	return &Tensor{DType: d, Shape: t.Shape, data: t.data}
}

// Clone copies storage and shape.
func (t *Tensor) Clone() *Tensor {
	c := New(t.DType, t.Shape...)
	copy(c.data, t.data)
	copy(c.strs, t.strs)
	return c
}

func (t *Tensor) String() string { return t.DType.String() + ShapeString(t.Shape) }

// KindError is what reading or setting a number panics with where elements are
// strings or complex numbers. Which type an operand has is up to a model, so
// whoever runs models turns this into an error.
type KindError struct{ Tensor string }

func (e *KindError) Error() string { return e.Tensor + " holds no numbers" }

// Float reads element i as float64 (bool as 0 or 1). 64-bit integers beyond
// 2^53 are rounded: use Int or Uint for those.
func (t *Tensor) Float(i int) float64 {
	switch t.DType {
	case F32:
		return float64(As[float32](t)[i])
	case F64:
		return As[float64](t)[i]
	case F16:
		return float64(F16ToFloat32(As[uint16](t)[i]))
	case BF16:
		return float64(math.Float32frombits(uint32(As[uint16](t)[i]) << 16))
	case U64:
		return float64(As[uint64](t)[i])
	case F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1:
		return SmallToFloat(t.DType, t.code(i))
	}
	return float64(t.Int(i))
}

// Int reads element i as int64; floats are truncated towards zero.
func (t *Tensor) Int(i int) int64 {
	switch t.DType {
	case I64:
		return As[int64](t)[i]
	case I32:
		return int64(As[int32](t)[i])
	case I16:
		return int64(As[int16](t)[i])
	case I8:
		return int64(As[int8](t)[i])
	case U64:
		return int64(As[uint64](t)[i])
	case U32:
		return int64(As[uint32](t)[i])
	case U16:
		return int64(As[uint16](t)[i])
	case U8, Bool:
		return int64(t.data[i])
	case U4, U2:
		return int64(t.code(i))
	case I4, I2:
		sh := 8 - t.DType.Bits()
		return int64(int8(t.code(i)<<sh) >> sh)
	}
	if !t.DType.IsFloat() {
		panic(&KindError{t.String()})
	}
	return FloatToInt64(t.Float(i))
}

// Uint reads element i as uint64, sign-extended where the type is signed.
func (t *Tensor) Uint(i int) uint64 { return uint64(t.Int(i)) }

// code is the bit pattern of element i of a type of at most eight bits.
func (t *Tensor) code(i int) uint8 {
	b := t.DType.Bits()
	if b == 8 {
		return t.data[i]
	}
	per := 8 / b
	return t.data[i/per] >> (uint(i%per) * uint(b)) & (1<<b - 1)
}

// setCode stores a bit pattern of at most eight bits.
func (t *Tensor) setCode(i int, c uint8) {
	b := t.DType.Bits()
	if b == 8 {
		t.data[i] = c
		return
	}
	per := 8 / b
	sh := uint(i%per) * uint(b)
	m := uint8(1<<b-1) << sh
	t.data[i/per] = t.data[i/per]&^m | c<<sh&m
}

// SetFloat stores v, rounded to nearest even for floats, truncated and wrapped
// for integers, v != 0 for bool.
func (t *Tensor) SetFloat(i int, v float64) {
	switch t.DType {
	case F32:
		As[float32](t)[i] = float32(v)
	case F64:
		As[float64](t)[i] = v
	case F16:
		As[uint16](t)[i] = F16FromFloat64(v)
	case BF16:
		As[uint16](t)[i] = BF16FromFloat64(v)
	case U64:
		As[uint64](t)[i] = FloatToUint64(v)
	case Bool:
		t.data[i] = 0
		if v != 0 {
			t.data[i] = 1
		}
	case I32:
		As[int32](t)[i] = FloatToInt32(v)
	case F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1:
		t.setCode(i, SmallFromFloat(t.DType, v, true))
	default:
		t.SetInt(i, FloatToInt64(v))
	}
}

// SetInt stores v, wrapped to the width of an integer type, v != 0 for bool.
func (t *Tensor) SetInt(i int, v int64) {
	switch t.DType {
	case I64:
		As[int64](t)[i] = v
	case U64:
		As[uint64](t)[i] = uint64(v)
	case I32:
		As[int32](t)[i] = int32(v)
	case U32:
		As[uint32](t)[i] = uint32(v)
	case I16:
		As[int16](t)[i] = int16(v)
	case U16:
		As[uint16](t)[i] = uint16(v)
	case I8, U8:
		t.data[i] = uint8(v)
	case I4, U4, I2, U2:
		t.setCode(i, uint8(v))
	case Bool:
		t.data[i] = 0
		if v != 0 {
			t.data[i] = 1
		}
	default:
		if !t.DType.IsFloat() {
			panic(&KindError{t.String()})
		}
		t.SetFloat(i, float64(v))
	}
}

// Ints reads all elements as int, for shapes, axes and the like.
func (t *Tensor) Ints() ([]int, error) {
	if !t.DType.IsInteger() {
		return nil, fmt.Errorf("expected integers, got %s", t)
	}
	v := make([]int, t.Len())
	for i := range v {
		v[i] = int(t.Int(i))
	}
	return v, nil
}

// Floats reads all elements as float64.
func (t *Tensor) Floats() []float64 {
	v := make([]float64, t.Len())
	for i := range v {
		v[i] = t.Float(i)
	}
	return v
}

// ErrString is returned where a number was expected and a string was found.
var ErrString = errors.New("string tensor where numbers are needed")

// Equal reports whether type, shape and every bit are the same.
func Equal(a, b *Tensor) bool {
	if a.DType != b.DType || len(a.Shape) != len(b.Shape) {
		return false
	}
	for i := range a.Shape {
		if a.Shape[i] != b.Shape[i] {
			return false
		}
	}
	if a.DType == String {
		for i := range a.strs {
			if a.strs[i] != b.strs[i] {
				return false
			}
		}
		return true
	}
	return string(a.data) == string(b.data)
}
