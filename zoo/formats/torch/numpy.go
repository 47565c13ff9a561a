package torch

import (
	"encoding/binary"
	"math"
)

// Scalar is the value of a NumPy scalar, such as a learning rate that a
// schedule computed: a bool, int64 or float64. Python numbers are themselves.
func Scalar(v Value) (Value, bool) {
	switch v.(type) {
	case bool, int64, float64:
		return v, true
	}
	o, ok := v.(*Object)
	if !ok || o.Class.Name != "scalar" || o.Args == nil || len(o.Args.Items) != 2 {
		return nil, false
	}
	if m := o.Class.Module; m != "numpy.core.multiarray" && m != "numpy._core.multiarray" {
		return nil, false
	}
	raw, ok := o.Args.Items[1].(Bytes)
	d, isDType := o.Args.Items[0].(*Object)
	if !ok || !isDType || !d.Is("numpy", "dtype") || len(d.Args.Items) == 0 {
		return nil, false
	}
	code, _ := d.Args.Items[0].(string)
	if t, ok := d.State.(*Tuple); ok && len(t.Items) > 1 && t.Items[1] == ">" {
		return nil, false
	}
	return scalarOf(code, []byte(raw))
}

// scalarOf decodes little-endian bytes by NumPy's type code.
func scalarOf(code string, b []byte) (Value, bool) {
	le := binary.LittleEndian
	if len(code) != 2 || len(b) != int(code[1]-'0') {
		return nil, false
	}
	switch code {
	case "b1":
		return b[0] != 0, true
	case "i1":
		return int64(int8(b[0])), true
	case "u1":
		return int64(b[0]), true
	case "i2":
		return int64(int16(le.Uint16(b))), true
	case "u2":
		return int64(le.Uint16(b)), true
	case "i4":
		return int64(int32(le.Uint32(b))), true
	case "u4":
		return int64(le.Uint32(b)), true
	case "i8":
		return int64(le.Uint64(b)), true
	case "f4":
		return float64(math.Float32frombits(le.Uint32(b))), true
	case "f8":
		return math.Float64frombits(le.Uint64(b)), true
	}
	return nil, false
}
