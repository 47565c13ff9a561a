package torch

import "github.com/lathe-ml/lathe/compiler/tensor"

// storageClass is one of torch's typed storages.
type storageClass struct {
	name  string
	dtype tensor.DType
	// plain says that tensors of the dtype are pickled with this storage.
	plain bool
}

// storageClasses lists the classes torch.<name>. The quantised ones share the
// bytes of an integer type.
var storageClasses = []storageClass{
	{"FloatStorage", tensor.F32, true},
	{"DoubleStorage", tensor.F64, true},
	{"HalfStorage", tensor.F16, true},
	{"BFloat16Storage", tensor.BF16, true},
	{"LongStorage", tensor.I64, true},
	{"IntStorage", tensor.I32, true},
	{"ShortStorage", tensor.I16, true},
	{"CharStorage", tensor.I8, true},
	{"ByteStorage", tensor.U8, true},
	{"BoolStorage", tensor.Bool, true},
	{"ComplexFloatStorage", tensor.C64, true},
	{"ComplexDoubleStorage", tensor.C128, true},
	{"QInt8Storage", tensor.I8, false},
	{"QUInt8Storage", tensor.U8, false},
	{"QInt32Storage", tensor.I32, false},
	{"QUInt4x2Storage", tensor.U8, false},
	{"QUInt2x4Storage", tensor.U8, false},
}

// untypedStorage is the class of storages that count bytes.
const untypedStorage = "UntypedStorage"

func storageClassOf(d tensor.DType) (string, bool) {
	for _, c := range storageClasses {
		if c.plain && c.dtype == d {
			return c.name, true
		}
	}
	return "", false
}

func storageClassByName(name string) (storageClass, bool) {
	for _, c := range storageClasses {
		if c.name == name {
			return c, true
		}
	}
	return storageClass{}, false
}

// dtypeNames are torch's dtypes as they are pickled: the global torch.<name>.
var dtypeNames = []struct {
	name  string
	dtype tensor.DType
}{
	{"float32", tensor.F32},
	{"float64", tensor.F64},
	{"float16", tensor.F16},
	{"bfloat16", tensor.BF16},
	{"int64", tensor.I64},
	{"int32", tensor.I32},
	{"int16", tensor.I16},
	{"int8", tensor.I8},
	{"uint8", tensor.U8},
	{"uint16", tensor.U16},
	{"uint32", tensor.U32},
	{"uint64", tensor.U64},
	{"bool", tensor.Bool},
	{"complex64", tensor.C64},
	{"complex128", tensor.C128},
	{"float8_e4m3fn", tensor.F8E4M3FN},
	{"float8_e4m3fnuz", tensor.F8E4M3FNUZ},
	{"float8_e5m2", tensor.F8E5M2},
	{"float8_e5m2fnuz", tensor.F8E5M2FNUZ},
	{"float8_e8m0fnu", tensor.F8E8M0},
}

// DTypeOf is the element type that a dtype global such as torch.float32 names.
func DTypeOf(v Value) (tensor.DType, bool) {
	c, ok := v.(*Class)
	if !ok || c.Module != "torch" {
		return tensor.Invalid, false
	}
	return dtypeByName(c.Name)
}

func dtypeByName(name string) (tensor.DType, bool) {
	for _, d := range dtypeNames {
		if d.name == name {
			return d.dtype, true
		}
	}
	return tensor.Invalid, false
}

// DTypeName is torch's name of an element type: "float32", "bfloat16", …; empty
// if torch has none.
func DTypeName(d tensor.DType) string {
	for _, x := range dtypeNames {
		if x.dtype == d {
			return x.name
		}
	}
	return ""
}

// DTypeClass is the dtype global of an element type; nil if torch has none.
func DTypeClass(d tensor.DType) *Class {
	if n := DTypeName(d); n != "" {
		return &Class{"torch", n}
	}
	return nil
}
