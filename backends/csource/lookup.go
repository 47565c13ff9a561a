package csource

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Bytes that a table of 256 bytes has for others are looked up by permutations
// of registers, many at a time; compilers make single loads of such a loop.

// bytesHeader is what kernels include that call functions of runs of bytes.
const bytesHeader = "#include \"lathe_bytes.h\"\n"

func usesBytes(text string) bool { return strings.Contains(text, "bytes_") }

func isByte(d tensor.DType) bool { return d == tensor.U8 || d == tensor.I8 }

// lookedUp gives the load of the byte that an expression looks up in a table of
// bytes; nil if it does not.
func lookedUp(e *loop.Expr) *loop.Expr {
	if e.Kind != loop.Load || !isByte(e.Type) || e.Buf.Len < 256 {
		return nil
	}
	x := e.Args[0]
	if x.Kind != loop.Cast || x.Args[0].Type != tensor.U8 {
		return nil
	}
	if x = x.Args[0]; x.Kind == loop.Bits {
		x = x.Args[0]
	}
	if x.Kind != loop.Load || !isByte(x.Type) || x.Buf == e.Buf {
		return nil
	}
	return x
}

// sum prints a loop that adds up a run of bytes, as a call; "" if it does
// something else.
func (p *printer) sum(f *loop.For) string {
	if len(f.Body) != 1 || f.Kind != loop.Vector || f.Par {
		return ""
	}
	a, ok := f.Body[0].(*loop.Accum)
	if !ok || a.Fn != "add" || a.Reg.Type != tensor.I32 || a.Val.Kind != loop.Cast || p.regs[a.Reg] != "" {
		return ""
	}
	x := a.Val.Args[0]
	if x.Kind != loop.Load || !isByte(x.Type) {
		return ""
	}
	step, rest, affine := loop.Stride(x.Args[0], f.Var)
	if !affine || step != 1 {
		return ""
	}
	return fmt.Sprintf("%s += bytes_sum_%s(%s + %s, %d);", a.Reg.Name, x.Type, x.Buf.Name, p.expr(rest), f.Var.N)
}

// lookup prints a loop, or two, that look up a run of bytes, as a call; "" if it
// does something else.
func (p *printer) lookup(f *loop.For) string {
	g := f
	if h, ok := f.Body[0].(*loop.For); ok && len(f.Body) == 1 && !f.Par && !h.Par {
		g = h
	}
	s, ok := g.Body[0].(*loop.Store)
	if !ok || len(g.Body) != 1 || g.Kind != loop.Vector {
		return ""
	}
	x := lookedUp(s.Val)
	if x == nil {
		return ""
	}
	to, from := s.Index, x.Args[0]
	run := 1
	for v := g.Var; ; v = f.Var {
		a, rest, ok1 := loop.Stride(to, v)
		b, src, ok2 := loop.Stride(from, v)
		if !ok1 || !ok2 || a != run || b != run {
			return ""
		}
		to, from = rest, src
		run *= v.N
		if v == f.Var {
			break
		}
	}
	n, at := fmt.Sprint(run), ""
	if f.Par {
		n, at = "hi - lo", " + lo"
	}
	return fmt.Sprintf("bytes_lookup((u8 *)%s + %s%s, (const u8 *)%s + %s%s, %s, (const u8 *)%s);",
		s.Buf.Name, p.expr(to), at, x.Buf.Name, p.expr(from), at, n, s.Val.Buf.Name)
}
