package tensor

import "fmt"

// DType is an element type. The numbers are those of ONNX
// TensorProto.DataType (onnx.proto), so that reading and writing need no table.
type DType uint8

// The element types of ONNX IR version 13 and the two-bit types of its
// successor.
const (
	Invalid    DType = 0
	F32        DType = 1
	U8         DType = 2
	I8         DType = 3
	U16        DType = 4
	I16        DType = 5
	I32        DType = 6
	I64        DType = 7
	String     DType = 8
	Bool       DType = 9
	F16        DType = 10
	F64        DType = 11
	U32        DType = 12
	U64        DType = 13
	C64        DType = 14 // complex of two F32
	C128       DType = 15 // complex of two F64
	BF16       DType = 16
	F8E4M3FN   DType = 17
	F8E4M3FNUZ DType = 18
	F8E5M2     DType = 19
	F8E5M2FNUZ DType = 20
	U4         DType = 21
	I4         DType = 22
	F4E2M1     DType = 23
	F8E8M0     DType = 24
	U2         DType = 25
	I2         DType = 26
)

// Kind classes element types by how their values are computed with.
type Kind uint8

// The kinds of element types.
const (
	KindNone Kind = iota
	KindFloat
	KindInt
	KindUint
	KindBool
	KindString
	KindComplex
)

type dtypeInfo struct {
	name string // lathe's short name, used in the text form
	onnx string // ONNX's spelling, used in messages and reports
	bits int    // bits per element in packed storage; 0 for strings
	kind Kind
}

// dtypes is indexed by DType.
var dtypes = [...]dtypeInfo{
	Invalid:    {"invalid", "undefined", 0, KindNone},
	F32:        {"f32", "float", 32, KindFloat},
	U8:         {"u8", "uint8", 8, KindUint},
	I8:         {"i8", "int8", 8, KindInt},
	U16:        {"u16", "uint16", 16, KindUint},
	I16:        {"i16", "int16", 16, KindInt},
	I32:        {"i32", "int32", 32, KindInt},
	I64:        {"i64", "int64", 64, KindInt},
	String:     {"string", "string", 0, KindString},
	Bool:       {"bool", "bool", 8, KindBool},
	F16:        {"f16", "float16", 16, KindFloat},
	F64:        {"f64", "double", 64, KindFloat},
	U32:        {"u32", "uint32", 32, KindUint},
	U64:        {"u64", "uint64", 64, KindUint},
	C64:        {"c64", "complex64", 64, KindComplex},
	C128:       {"c128", "complex128", 128, KindComplex},
	BF16:       {"bf16", "bfloat16", 16, KindFloat},
	F8E4M3FN:   {"f8e4m3fn", "float8e4m3fn", 8, KindFloat},
	F8E4M3FNUZ: {"f8e4m3fnuz", "float8e4m3fnuz", 8, KindFloat},
	F8E5M2:     {"f8e5m2", "float8e5m2", 8, KindFloat},
	F8E5M2FNUZ: {"f8e5m2fnuz", "float8e5m2fnuz", 8, KindFloat},
	U4:         {"u4", "uint4", 4, KindUint},
	I4:         {"i4", "int4", 4, KindInt},
	F4E2M1:     {"f4e2m1", "float4e2m1", 4, KindFloat},
	F8E8M0:     {"f8e8m0", "float8e8m0", 8, KindFloat},
	U2:         {"u2", "uint2", 2, KindUint},
	I2:         {"i2", "int2", 2, KindInt},
}

// Valid reports whether d is a known element type.
func (d DType) Valid() bool { return d != Invalid && int(d) < len(dtypes) }

func (d DType) info() dtypeInfo {
	if int(d) < len(dtypes) {
		return dtypes[d]
	}
	return dtypeInfo{name: fmt.Sprintf("dtype%d", d), onnx: fmt.Sprintf("dtype %d", d)}
}

// String is the short name of the text form: f32, i64, bool, …
func (d DType) String() string { return d.info().name }

// ONNX is the name that the ONNX specification uses: float, int64, bool, …
func (d DType) ONNX() string { return d.info().onnx }

// Bits is the size of one packed element in bits; 0 for strings.
func (d DType) Bits() int { return d.info().bits }

// Size is the size of one element in bytes where elements are whole bytes; it
// is 0 for strings and for the two- and four-bit types.
func (d DType) Size() int { return d.info().bits / 8 }

// Kind tells how values of the type are computed with.
func (d DType) Kind() Kind { return d.info().kind }

// IsFloat reports a floating-point type of any width.
func (d DType) IsFloat() bool { return d.Kind() == KindFloat }

// IsInteger reports a signed or unsigned integer type of any width.
func (d DType) IsInteger() bool { k := d.Kind(); return k == KindInt || k == KindUint }

// IsNumeric reports a float or integer type.
func (d DType) IsNumeric() bool { return d.IsFloat() || d.IsInteger() }

// Bytes is the number of bytes that n packed elements take.
func (d DType) Bytes(n int) int { return (n*d.Bits() + 7) / 8 }

// ParseDType reads a short name (f32) or an ONNX name (float).
func ParseDType(s string) (DType, bool) {
	for i, t := range dtypes {
		if i != 0 && (t.name == s || t.onnx == s) {
			return DType(i), true
		}
	}
	switch s {
	case "float32":
		return F32, true
	case "float64":
		return F64, true
	}
	return Invalid, false
}

// IntRange is the range of an integer type, as int64 and uint64 limits.
func (d DType) IntRange() (lo int64, hi uint64) {
	b := d.Bits()
	if d.Kind() == KindUint {
		if b == 64 {
			return 0, ^uint64(0)
		}
		return 0, 1<<b - 1
	}
	return -1 << (b - 1), 1<<(b-1) - 1
}
