package tensor

import "math"

// F16ToFloat32 widens an IEEE binary16 value exactly.
func F16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 31
	man := uint32(h & 0x3ff)
	switch exp {
	case 0:
		f := float32(man) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | man<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
}

// roundScaled rounds v/2^e to an integer, ties to even.
func roundScaled(v float64, e int) float64 { return math.RoundToEven(math.Ldexp(v, -e)) }

// F16FromFloat64 rounds to the nearest binary16, ties to even, in one rounding.
func F16FromFloat64(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign = 0x8000
		v = -v
	}
	switch {
	case math.IsNaN(v):
		return sign | 0x7e00
	case v >= 65520:
		return sign | 0x7c00
	case v < 0x1p-14:
		return sign | uint16(roundScaled(v, -24))
	}
	_, e := math.Frexp(v) // v = f·2^e, f in [0.5,1)
	m := uint32(roundScaled(v, e-11))
	// m is in [1024,2048]; a carry into 2048 moves the exponent by itself.
	return sign | uint16(uint32(e+13)<<10+m)
}

// BF16FromFloat64 rounds to the nearest bfloat16, ties to even, in one rounding.
func BF16FromFloat64(v float64) uint16 {
	if math.IsNaN(v) {
		return 0x7fc0
	}
	f := float32(v)
	b := math.Float32bits(f)
	// Round to odd first, so that rounding twice equals rounding once.
	if d := float64(f); d != v && b&1 == 0 {
		if (math.Abs(d) > math.Abs(v)) || math.IsInf(d, 0) {
			b--
		} else {
			b |= 1
		}
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// smallFormat describes a float type of at most eight bits.
type smallFormat struct {
	ebits, mbits, bias int
	inf                bool // has infinities (IEEE style)
	fnuz               bool // no negative zero: its code is NaN
	noNaN              bool // finite only
}

var smallFormats = map[DType]smallFormat{
	F8E4M3FN:   {4, 3, 7, false, false, false},
	F8E4M3FNUZ: {4, 3, 8, false, true, false},
	F8E5M2:     {5, 2, 15, true, false, false},
	F8E5M2FNUZ: {5, 2, 16, false, true, false},
	F4E2M1:     {2, 1, 1, false, false, true},
}

// SmallToFloat decodes an eight- or four-bit float (ONNX "Float stored in 8
// bits", "Float stored in 4 bits"; OCP MX for F8E8M0).
func SmallToFloat(d DType, c uint8) float64 {
	if d == F8E8M0 {
		if c == 255 {
			return math.NaN()
		}
		return math.Ldexp(1, int(c)-127)
	}
	f := smallFormats[d]
	w := f.ebits + f.mbits
	neg := c>>w&1 == 1
	e := int(c>>f.mbits) & (1<<f.ebits - 1)
	m := int(c) & (1<<f.mbits - 1)
	var v float64
	switch top := e == 1<<f.ebits-1; {
	case f.fnuz && neg && e == 0 && m == 0:
		return math.NaN()
	case f.inf && top && m == 0:
		v = math.Inf(1)
	case f.inf && top:
		return math.NaN()
	case !f.inf && !f.fnuz && !f.noNaN && top && m == 1<<f.mbits-1:
		return math.NaN()
	case e == 0:
		v = math.Ldexp(float64(m), 1-f.bias-f.mbits)
	default:
		v = math.Ldexp(float64(m+1<<f.mbits), e-f.bias-f.mbits)
	}
	if neg {
		v = -v
	}
	return v
}

// SmallFromFloat encodes v, rounded to nearest even. Out of range it saturates
// to the largest finite value if saturate is set, else it gives infinity or,
// where the type has none, NaN (the table of ONNX Cast).
func SmallFromFloat(d DType, v float64, saturate bool) uint8 {
	if d == F8E8M0 {
		return E8M0FromFloat(v, saturate, "up")
	}
	f := smallFormats[d]
	w := f.ebits + f.mbits
	sign := uint8(0)
	if math.Signbit(v) {
		sign = 1 << w
	}
	nan := sign | 1<<w - 1
	if f.fnuz {
		nan = 1 << w
	}
	topCode := 1<<w - 1 // the largest finite code
	switch {
	case f.inf:
		topCode = (1<<f.ebits-1)<<f.mbits - 1
	case !f.fnuz && !f.noNaN:
		topCode--
	}
	if math.IsNaN(v) {
		if f.noNaN {
			return 1 << w // negative zero, as in the ONNX cases
		}
		return nan
	}
	a := math.Abs(v)
	code := topCode + 1
	if !math.IsInf(a, 0) {
		_, e := math.Frexp(a)
		e = max(e-1, 1-f.bias)
		m := roundScaled(a, e-f.mbits)
		if a == 0 {
			e, m = 1-f.bias, 0 // Frexp gives zero the exponent 0
		}
		big := float64(e+f.bias-1)*float64(int(1)<<f.mbits) + m
		if big <= float64(topCode) {
			code = int(big)
		}
	}
	if code > topCode {
		switch {
		case f.noNaN:
			code = topCode
		case saturate && (!math.IsInf(v, 0) || f.fnuz || !f.inf):
			code = topCode
		case saturate:
			code = topCode
		case f.inf:
			code = topCode + 1
		default:
			return nan
		}
	}
	if code == 0 && f.fnuz {
		return 0
	}
	return sign | uint8(code)
}

// E8M0FromFloat encodes the magnitude of v as a power of two. mode is "up",
// "down" or "nearest" (ONNX Cast attribute round_mode).
func E8M0FromFloat(v float64, saturate bool, mode string) uint8 {
	if math.IsNaN(v) {
		return 255
	}
	a := math.Abs(v)
	if math.IsInf(a, 0) {
		if saturate {
			return 254
		}
		return 255
	}
	if a == 0 {
		return 0
	}
	fr, e := math.Frexp(a)
	e-- // a = (2·fr)·2^e, 2·fr in [1,2)
	switch {
	case mode == "up" && fr > 0.5, mode == "nearest" && fr >= 0.75:
		e++
	}
	switch {
	case e < -127:
		return 0
	case e > 127:
		if saturate {
			return 254
		}
		return 255
	}
	return uint8(e + 127)
}

// FloatToInt64 truncates towards zero; out of range gives the smallest int64,
// as the x86 conversion does.
func FloatToInt64(v float64) int64 {
	if v >= -0x1p63 && v < 0x1p63 {
		return int64(v)
	}
	return math.MinInt64
}

// FloatToInt32 truncates towards zero; out of range gives the smallest int32,
// as the x86 conversion does.
func FloatToInt32(v float64) int32 {
	if v > -0x1p31-1 && v < 0x1p31 {
		return int32(v)
	}
	return math.MinInt32
}

// FloatToUint64 truncates towards zero; negative values wrap as int64 does.
func FloatToUint64(v float64) uint64 {
	if v >= 0x1p63 && v < 0x1p64 {
		return uint64(v-0x1p63) + 1<<63
	}
	return uint64(FloatToInt64(v))
}

// Convert gives the values of t in another element type (Cast with
// saturation; strings are not handled here).
func Convert(t *Tensor, d DType) *Tensor {
	if t.DType == d {
		return t
	}
	out := New(d, t.Shape...)
	n := t.Len()
	switch {
	case t.DType == F32 && d == F64:
		src, dst := As[float32](t), As[float64](out)
		for i, v := range src {
			dst[i] = float64(v)
		}
	case t.DType == I64 && d == F32: // one rounding: not through float64
		dst := As[float32](out)
		for i, v := range As[int64](t) {
			dst[i] = float32(v)
		}
	case t.DType == U64 && d == F32:
		dst := As[float32](out)
		for i, v := range As[uint64](t) {
			dst[i] = float32(v)
		}
	case t.DType.IsFloat():
		for i := range n {
			out.SetFloat(i, t.Float(i))
		}
	case t.DType == U64 && d.IsFloat():
		for i, v := range As[uint64](t) {
			out.SetFloat(i, float64(v))
		}
	default:
		for i := range n {
			out.SetInt(i, t.Int(i))
		}
	}
	return out
}
