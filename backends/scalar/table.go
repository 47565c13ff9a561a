package scalar

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Func is the meaning of one scalar function. A nil field says that the
// function does not take operands of that kind.
type Func struct {
	F1 func(a float64) float64
	F2 func(a, b float64) float64
	I1 func(a int64) int64
	I2 func(a, b int64) int64
	U2 func(a, b uint64) uint64 // of unsigned operands where I2 would differ
	// Shift: the second operand counts bits; from the width on, all are out.
	Shift bool
	// Test: the result is a truth value; FT, IT and UT compute it.
	Test bool
	T1   func(a float64) bool
	FT   func(a, b float64) bool
	IT   func(a, b int64) bool
	UT   func(a, b uint64) bool
}

// Lookup gives the function of a name; nil if there is none.
func Lookup(name string) *Func { return table[name] }

var table = map[string]*Func{
	"neg":    {F1: func(a float64) float64 { return -a }, I1: func(a int64) int64 { return -a }},
	"abs":    {F1: math.Abs, I1: func(a int64) int64 { return max(a, -a) }},
	"sign":   {F1: sign, I1: func(a int64) int64 { return min(max(a, -1), 1) }},
	"exp":    {F1: math.Exp},
	"expneg": {F1: math.Exp}, // of numbers up to 0
	"log":    {F1: math.Log},
	"sqrt":   {F1: math.Sqrt},
	"sin":    {F1: math.Sin},
	"cos":    {F1: math.Cos},
	"tan":    {F1: math.Tan},
	"asin":   {F1: math.Asin},
	"acos":   {F1: math.Acos},
	"atan":   {F1: math.Atan},
	"sinh":   {F1: math.Sinh},
	"cosh":   {F1: math.Cosh},
	"tanh":   {F1: math.Tanh},
	"asinh":  {F1: math.Asinh},
	"acosh":  {F1: math.Acosh},
	"atanh":  {F1: math.Atanh},
	"erf":    {F1: math.Erf},
	"floor":  {F1: math.Floor, I1: same},
	"ceil":   {F1: math.Ceil, I1: same},
	"round":  {F1: math.RoundToEven, I1: same},
	"trunc":  {F1: math.Trunc, I1: same},
	"not":    {I1: func(a int64) int64 { return ^a }},
	"isnan":  {Test: true, T1: func(a float64) bool { return a != a }},

	"add":  {F2: func(a, b float64) float64 { return a + b }, I2: func(a, b int64) int64 { return a + b }},
	"sub":  {F2: func(a, b float64) float64 { return a - b }, I2: func(a, b int64) int64 { return a - b }},
	"mul":  {F2: func(a, b float64) float64 { return a * b }, I2: func(a, b int64) int64 { return a * b }},
	"div":  {F2: func(a, b float64) float64 { return a / b }, I2: quo[int64], U2: quo[uint64]},
	"pow":  {F2: math.Pow, I2: power, U2: powerU},
	"mod":  {F2: floorMod, I2: floorModI, U2: rem[uint64]},
	"fmod": {F2: math.Mod, I2: rem[int64], U2: rem[uint64]},
	"min":  {F2: Min, I2: func(a, b int64) int64 { return min(a, b) }, U2: func(a, b uint64) uint64 { return min(a, b) }},
	"max":  {F2: Max, I2: func(a, b int64) int64 { return max(a, b) }, U2: func(a, b uint64) uint64 { return max(a, b) }},
	"shl":  {Shift: true, I2: func(a, b int64) int64 { return a << uint64(b) }},
	"shr":  {Shift: true, I2: func(a, b int64) int64 { return a >> uint64(b) }, U2: func(a, b uint64) uint64 { return a >> b }},
	"and":  {I2: func(a, b int64) int64 { return a & b }},
	"or":   {I2: func(a, b int64) int64 { return a | b }},
	"xor":  {I2: func(a, b int64) int64 { return a ^ b }},

	"eq": {Test: true, FT: func(a, b float64) bool { return a == b }, IT: func(a, b int64) bool { return a == b }},
	"lt": {Test: true, FT: func(a, b float64) bool { return a < b }, IT: func(a, b int64) bool { return a < b }, UT: func(a, b uint64) bool { return a < b }},
	"le": {Test: true, FT: func(a, b float64) bool { return a <= b }, IT: func(a, b int64) bool { return a <= b }, UT: func(a, b uint64) bool { return a <= b }},

	// Index arithmetic: the divisor is positive.
	"idiv": {I2: FloorDiv},
	"imod": {I2: func(a, b int64) int64 { return a - b*FloorDiv(a, b) }},
}

func same(a int64) int64 { return a }

func sign(a float64) float64 {
	switch {
	case a > 0:
		return 1
	case a < 0:
		return -1
	}
	return a
}

// Min is the smaller, NaN if either is.
func Min(a, b float64) float64 {
	if a < b || a != a {
		return a
	}
	return b
}

// Max is the larger, NaN if either is.
func Max(a, b float64) float64 {
	if a > b || a != a {
		return a
	}
	return b
}

func quo[T int64 | uint64](a, b T) T {
	if b == 0 {
		return 0
	}
	return a / b
}

func rem[T int64 | uint64](a, b T) T {
	if b == 0 {
		return 0
	}
	return a % b
}

func floorModI(a, b int64) int64 {
	r := rem(a, b)
	if r != 0 && (r < 0) != (b < 0) {
		r += b
	}
	return r
}

func floorMod(a, b float64) float64 {
	r := math.Mod(a, b)
	if r != 0 && (r < 0) != (b < 0) {
		r += b
	}
	return r
}

// FloorDiv is the floor of the quotient by a positive number.
func FloorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func powerU(a, b uint64) uint64 {
	r := uint64(1)
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			r *= a
		}
		a *= a
	}
	return r
}

func power(a, b int64) int64 {
	if b >= 0 {
		return int64(powerU(uint64(a), uint64(b)))
	}
	switch {
	case a == 1, a == -1 && b%2 == 0:
		return 1
	case a == -1:
		return -1
	}
	return 0
}

// Round gives a value rounded to a float type.
func Round(d tensor.DType, v float64) float64 {
	switch d {
	case tensor.F32:
		return float64(float32(v))
	case tensor.F16:
		return float64(tensor.F16ToFloat32(tensor.F16FromFloat64(v)))
	case tensor.BF16:
		return float64(math.Float32frombits(uint32(tensor.BF16FromFloat64(v)) << 16))
	}
	return v
}

// Wrap cuts a value to the width of an integer type; a truth value stays 0 or
// 1 (its lowest bit, so that not is the complement).
func Wrap(d tensor.DType, v int64) int64 {
	switch d {
	case tensor.I8:
		return int64(int8(v))
	case tensor.I16:
		return int64(int16(v))
	case tensor.I32:
		return int64(int32(v))
	case tensor.U8:
		return int64(uint8(v))
	case tensor.U16:
		return int64(uint16(v))
	case tensor.U32:
		return int64(uint32(v))
	case tensor.Bool:
		return v & 1
	}
	return v
}

// FloatToInt takes a float to an integer type, towards zero. Types of up to 32
// bits are cut from a 32-bit integer, U32 from a 64-bit one; what those cannot
// hold becomes their smallest value.
func FloatToInt(d tensor.DType, v float64) int64 {
	switch {
	case d == tensor.Bool:
		if v != 0 {
			return 1
		}
		return 0
	case d == tensor.U64:
		return int64(tensor.FloatToUint64(v))
	case d == tensor.I64 || d == tensor.U32:
		return Wrap(d, tensor.FloatToInt64(v))
	case v > -0x1p31-1 && v < 0x1p31:
		return Wrap(d, int64(v))
	}
	return Wrap(d, math.MinInt32)
}

// IntToFloat takes an integer of type from to a float type, rounding once
// (through F64 for the narrow types).
func IntToFloat(from, to tensor.DType, v int64) float64 {
	switch {
	case to == tensor.F32 && from == tensor.U64:
		return float64(float32(uint64(v)))
	case to == tensor.F32:
		return float64(float32(v))
	case from == tensor.U64:
		return Round(to, float64(uint64(v)))
	}
	return Round(to, float64(v))
}

// IntToInt takes an integer to another integer type.
func IntToInt(d tensor.DType, v int64) int64 {
	if d == tensor.Bool {
		if v != 0 {
			return 1
		}
		return 0
	}
	return Wrap(d, v)
}

// ToBits gives the bits of a float of a type.
func ToBits(d tensor.DType, v float64) uint64 {
	switch d {
	case tensor.F32:
		return uint64(math.Float32bits(float32(v)))
	case tensor.F16:
		return uint64(tensor.F16FromFloat64(v))
	case tensor.BF16:
		return uint64(tensor.BF16FromFloat64(v))
	}
	return math.Float64bits(v)
}

// FromBits gives the float of a type that bits stand for.
func FromBits(d tensor.DType, b uint64) float64 {
	switch d {
	case tensor.F32:
		return float64(math.Float32frombits(uint32(b)))
	case tensor.F16:
		return float64(tensor.F16ToFloat32(uint16(b)))
	case tensor.BF16:
		return float64(math.Float32frombits(uint32(b) << 16))
	}
	return math.Float64frombits(b)
}
