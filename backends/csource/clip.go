package csource

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// clipped is a float between two numbers that is stored as a byte: what
// quantizing ends with. The runtime does it for a register; as a choice between
// three values, with NaN as a fourth, a compiler takes twice as many instructions.
type clipped struct {
	of     *loop.Expr
	lo, hi float32
	nan    bool // it may be NaN, whose byte is 0
}

// clippedByte finds that form; ok is false if a value has another.
func clippedByte(val *loop.Expr) (c clipped, ok bool) {
	if val.Kind != loop.Cast || !isByte(val.Type) || val.Args[0].Type != tensor.F32 {
		return c, false
	}
	low, high := math.Inf(-1), math.Inf(1)
	e := val.Args[0]
	for range 2 {
		if e.Kind != loop.Call || len(e.Args) != 2 || e.Args[1].Kind != loop.Const {
			return c, false
		}
		switch at := e.Args[1].F; {
		case e.Fn == "max" && math.IsInf(low, -1):
			low = at
		case e.Fn == "min" && math.IsInf(high, 1):
			high = at
		default:
			return c, false
		}
		e = e.Args[0]
	}
	if !(low >= -256 && low <= high && high <= 256) {
		return c, false
	}
	return clipped{e, float32(low), float32(high), !(magnitude(e) < 1e38)}, true
}

// magnitude bounds what an expression of floats may be; infinite if it is not
// known, or if it may be NaN.
func magnitude(e *loop.Expr) float64 {
	arg := func(i int) float64 { return magnitude(e.Args[i]) }
	switch {
	case e.Kind == loop.Const && e.Type == tensor.F32 && !math.IsNaN(e.F):
		return math.Abs(e.F)
	case e.Kind == loop.Cast && e.Type == tensor.F32 && e.Args[0].Type.IsInteger():
		return math.Ldexp(1, e.Args[0].Type.Bits())
	case e.Kind != loop.Call || e.Type != tensor.F32:
		return math.Inf(1)
	}
	switch e.Fn {
	case "add", "sub":
		return arg(0) + arg(1)
	case "mul":
		if a, b := arg(0), arg(1); a < 1e38 && b < 1e38 {
			return a * b
		}
	case "max", "min":
		return max(arg(0), arg(1))
	case "round", "floor", "ceil", "trunc":
		return arg(0) + 1
	case "neg", "abs":
		return arg(0)
	}
	return math.Inf(1)
}
