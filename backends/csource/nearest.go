package csource

import (
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// What quantizing stores is a number rounded, moved by a zero point and bounded
// to the range of a byte. All bounds may come behind the rounding as one pair,
// and a number is rounded by adding one so large that its last bits are the whole
// number: three or four instructions where there were seven.

// nearest is such a value: round(of), bounded to [lo, hi], and zero.
type nearest struct {
	round, of *loop.Expr
	lo, hi    float64
	zero      float64
}

// mostNearest bounds what is rounded that way.
const mostNearest = 1 << 20

// nearestIn takes a byte's expression apart; ok is false if it does not have
// that form.
func nearestIn(e *loop.Expr) (n nearest, ok bool) {
	if e.Kind != loop.Cast || e.Type != tensor.U8 && e.Type != tensor.I8 || e.Args[0].Type != tensor.F32 {
		return n, false
	}
	n.lo, n.hi = math.Inf(-1), math.Inf(1)
	for e = e.Args[0]; ; e = e.Args[0] {
		if e.Kind != loop.Call || e.Fn == "round" {
			break
		}
		if len(e.Args) != 2 || e.Args[1].Kind != loop.Const || e.Args[1].F != math.Trunc(e.Args[1].F) || math.Abs(e.Args[1].F) > mostNearest || !n.within(e.Fn, e.Args[1].F) {
			return n, false
		}
	}
	if e.Kind != loop.Call {
		return n, false
	}
	n.round, n.of = e, e.Args[0]
	for n.of.Kind == loop.Call && (n.of.Fn == "max" || n.of.Fn == "min") && n.of.Args[1].Kind == loop.Const && !math.IsNaN(n.of.Args[1].F) {
		n.within(n.of.Fn, math.RoundToEven(n.of.Args[1].F)) // rounding keeps the order
		n.of = n.of.Args[0]
	}
	return n, n.hi >= 0 && math.Max(-n.lo, n.hi) <= mostNearest && math.Abs(n.zero) <= mostNearest
}

// within moves from the result of an operation with a constant to its operand.
func (n *nearest) within(fn string, c float64) bool {
	switch fn {
	case "max":
		n.lo = math.Min(math.Max(c, n.lo), n.hi)
	case "min":
		n.hi = math.Max(math.Min(c, n.hi), n.lo)
	case "add":
		n.lo, n.hi, n.zero = n.lo-c, n.hi-c, n.zero+c
	case "sub":
		n.lo, n.hi, n.zero = n.lo+c, n.hi+c, n.zero-c
	default:
		return false
	}
	return true
}

// nearest prints a byte that nearestIn knows, in 32 bits of which the low eight
// count; "" for others, and for what need not be a number.
func (p *printer) nearest(e *loop.Expr) string {
	n, ok := nearestIn(e)
	if !ok || p.temps[n.round.Key()] != "" || !p.number(n.of) {
		return ""
	}
	return fmt.Sprintf("nearest_f32(%s, %d, %s, %d)", p.expr(n.of), int(n.lo), f32(float32(n.hi)), int(n.zero))
}

// number reports an expression that is no NaN: whole numbers, what tiles of bytes
// sum, and such multiplied.
func (p *printer) number(e *loop.Expr) bool {
	switch e.Kind {
	case loop.Const:
		return !math.IsNaN(e.F) && !math.IsInf(e.F, 0)
	case loop.Cast:
		return !e.Args[0].Type.IsFloat()
	case loop.Load:
		return p.wholeSums(e.Buf)
	case loop.Call:
		switch e.Fn {
		case "mul":
			return p.number(e.Args[0]) && (e.Args[1].Kind == loop.Load || p.number(e.Args[1]))
		case "max", "min", "round", "add", "sub":
			return p.number(e.Args[0]) && p.number(e.Args[1%len(e.Args)])
		}
	}
	return false
}

// wholeSums reports a buffer that only tiles of bytes write.
func (p *printer) wholeSums(b *loop.Buffer) bool {
	if b.Space != loop.Local {
		return false
	}
	whole := false
	var visit func(body []loop.Stmt) bool
	visit = func(body []loop.Stmt) bool {
		for _, s := range body {
			ok := true
			switch s := s.(type) {
			case *loop.For:
				ok = visit(s.Body)
			case *loop.Cond:
				ok = visit(s.Then) && visit(s.Else)
			case *loop.Store:
				ok = s.Buf != b
			case *loop.Tile:
				if s.S == b {
					whole, ok = true, s.Kind == loop.TileU8S8
				}
			}
			if !ok {
				return false
			}
		}
		return true
	}
	return visit(p.kernel.Body) && whole
}
