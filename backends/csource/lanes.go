package csource

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// A C compiler makes all vectors of a loop equally many bytes, so that a loop
// which stores bytes computes its floats four registers at a time, by the
// smallest. Loops that mix F32 with narrow elements in memory are therefore
// cut in blocks of one F32 register: narrow operands are widened to an array,
// the block is computed, its results are narrowed.

// narrowMem are the element types that are widened and narrowed apart, and what
// they are widened to.
var narrowMem = map[tensor.DType]string{tensor.U8: "i32", tensor.I8: "i32", tensor.BF16: "i32", tensor.F16: "float"}

// narrowed is the load that an expression widens, else nil. An instruction makes
// floats of float16, so that there the conversion is widened with its operand.
func narrowed(e *loop.Expr) *loop.Expr {
	half := func(x *loop.Expr) bool { return x.Kind == loop.Load && x.Type == tensor.F16 }
	switch {
	case e.Kind == loop.Cast && e.Type == tensor.F32 && half(e.Args[0]):
		return e.Args[0]
	case lookedUp(e) != nil:
		return e
	case e.Kind == loop.Load && narrowMem[e.Type] != "" && !half(e):
		return e
	}
	return nil
}

// mixed finds the narrow loads of a vector loop that profits from blocks; ok
// is false if it does not, or if its form does not allow them.
func mixed(f *loop.For, t backend.Traits) (s *loop.Store, loads []*loop.Expr, ok bool) {
	width := t.Lanes
	if f.Kind != loop.Vector || len(f.Body) != 1 || width < 8 || !f.Par && f.Var.N < width {
		return nil, nil, false
	}
	s, ok = f.Body[0].(*loop.Store)
	if !ok {
		return nil, nil, false
	}
	unit := func(index *loop.Expr) bool {
		k, affine := loop.Coef(index, f.Var)
		return affine && k == 1
	}
	floats, fits := false, unit(s.Index)
	seen := map[string]bool{}
	s.Val.Walk(func(e *loop.Expr) {
		floats = floats || e.Type == tensor.F32
		from := narrowed(e)
		if from == nil {
			return
		}
		x := from
		if y := lookedUp(from); y != nil {
			x = y
		}
		lo, hi := loop.Range(x.Args[0])
		fits = fits && unit(x.Args[0]) && lo >= 0 && hi < int64(x.Buf.Len) // a guard may be around it
		fits = fits && (from.Type != tensor.F16 || t.Has("f16c"))
		if !seen[e.Key()] {
			seen[e.Key()] = true
			loads = append(loads, e)
		}
	})
	if narrowMem[s.Buf.Type] != "" {
		fits = fits && widens(s.Val) && (s.Buf.Type != tensor.F16 || t.Has("f16c"))
	} else if len(loads) == 0 || s.Buf.Type != tensor.F32 && s.Buf.Type != tensor.I32 {
		fits = false
	}
	return s, loads, fits && (floats || s.Buf.Type == tensor.I32)
}

// inside reports that an expression may be evaluated whatever guards it: all
// that it loads lies within its buffers, and no integer is divided.
func inside(e *loop.Expr) bool {
	ok := true
	e.Walk(func(e *loop.Expr) {
		switch {
		case e.Kind == loop.Load:
			lo, hi := loop.Range(e.Args[0])
			ok = ok && lo >= 0 && hi < int64(e.Buf.Len)
		case e.Kind == loop.Call && !e.Type.IsFloat() && (e.Fn == "div" || e.Fn == "mod" || e.Fn == "fmod"):
			ok = false
		}
	})
	return ok
}

// widens reports whether a narrow value can be computed in 32 bits.
func widens(e *loop.Expr) bool {
	switch e.Kind {
	case loop.Const, loop.Load:
		return true
	case loop.Cast:
		return e.Args[0].Type == tensor.F32
	case loop.Select:
		return widens(e.Args[1]) && widens(e.Args[2])
	}
	return false
}

// wide prints a narrow value in 32 bits.
func (p *printer) wide(e *loop.Expr) string {
	switch e.Kind {
	case loop.Load:
		if e.Type == tensor.F16 {
			return convert(tensor.F16, tensor.F32, p.expr(e))
		}
	case loop.Cast:
		if e.Type == tensor.F16 {
			return p.expr(e.Args[0])
		}
		if e.Type == tensor.BF16 {
			return "(i32)round_bf16(" + p.expr(e.Args[0]) + ")"
		}
		if s := p.nearest(e); s != "" {
			return s
		}
		return "(i32)(" + p.expr(e.Args[0]) + ")"
	case loop.Select:
		return "(" + p.expr(e.Args[0]) + " ? " + p.wide(e.Args[1]) + " : " + p.wide(e.Args[2]) + ")"
	case loop.Const:
		if e.Type == tensor.F16 {
			return f32(float32(e.F))
		}
		if e.Type == tensor.BF16 {
			return "(i32)to_bf16_f32(" + f32(float32(e.F)) + ")"
		}
		return fmt.Sprint(e.I)
	}
	return p.expr(e)
}

var truth = map[bool]int{true: 1}

// blocks prints a loop of mixed widths; see mixed.
func (p *printer) blocks(f *loop.For, s *loop.Store, loads []*loop.Expr, width int, lo, hi string, tiles *tilePrinter) {
	v := f.Var.Name
	p.line("{ i64 %s_ = %s;", v, lo)
	p.line("for (; %s_ + %d <= %s; %s_ += %d) {", v, width, hi, v, width)
	outer := p.indent
	p.indent += "  "
	for i, e := range loads {
		from := narrowed(e)
		if x := lookedUp(from); x != nil {
			p.line("u8 %s_u%d[%d]; { const i64 %s = %s_; bytes_lookup(%s_u%d, (const u8 *)%s + %s, %d, (const u8 *)%s); }", v, i, width, v, v, v, i, x.Buf.Name, p.expr(x.Args[0]), width, from.Buf.Name)
			p.line("i32 %s_n%d[%d]; widen%d_%s(%s_n%d, (const %s *)%s_u%d);", v, i, width, width, from.Type, v, i, from.Type, v, i)
			continue
		}
		p.line("%s %s_n%d[%d]; { const i64 %s = %s_; widen%d_%s(%s_n%d, %s + %s); }", narrowMem[from.Type], v, i, width, v, v, width, from.Type, v, i, from.Buf.Name, p.expr(from.Args[0]))
	}
	wide := narrowMem[s.Buf.Type]
	narrow := wide != ""
	clip, clips := clippedByte(s.Val)
	switch {
	case clips:
		p.line("float %s_o[%d];", v, width)
	case narrow:
		p.line("%s %s_o[%d];", wide, v, width)
	}
	p.line("#pragma omp simd")
	p.line("for (i64 %s_j = 0; %s_j < %d; %s_j++) {", v, v, width, v)
	p.indent += "  "
	p.line("const i64 %s = %s_ + %s_j; (void)%s;", v, v, v, v)
	for i, e := range loads {
		p.temps[e.Key()] = fmt.Sprintf("%s_n%d[%s_j]", v, i, v)
	}
	if clips {
		undo := p.name(clip.of)
		p.line("%s_o[%s_j] = %s;", v, v, p.expr(clip.of))
		undo()
	} else if narrow {
		undo := p.name(s.Val)
		if e := s.Val; e.Kind == loop.Select && inside(e.Args[1]) && inside(e.Args[2]) { // no branch, so that vectors can be made
			p.line("const %s %s_a = %s, %s_b = %s;", wide, v, p.wide(e.Args[1]), v, p.wide(e.Args[2]))
			p.line("%s_o[%s_j] = %s ? %s_a : %s_b;", v, v, p.expr(e.Args[0]), v, v)
		} else {
			p.line("%s_o[%s_j] = %s;", v, v, p.wide(e))
		}
		undo()
	} else {
		undo := p.name(s.Index, s.Val)
		p.line("%s[%s] = %s;", s.Buf.Name, p.expr(s.Index), p.expr(s.Val))
		undo()
	}
	for _, e := range loads {
		delete(p.temps, e.Key())
	}
	p.indent = outer + "  "
	p.line("}")
	if clips {
		p.line("{ const i64 %s = %s_; clip%d_%s(%s + %s, %s_o, %s, %s, %d); }", v, v, width, s.Buf.Type, s.Buf.Name, p.expr(s.Index), v, f32(clip.lo), f32(clip.hi), truth[clip.nan])
	} else if narrow {
		p.line("{ const i64 %s = %s_; narrow%d_%s(%s + %s, %s_o); }", v, v, width, s.Buf.Type, s.Buf.Name, p.expr(s.Index), v)
	}
	p.indent = outer
	p.line("}")
	if f.Par || f.Var.N%width != 0 {
		p.line("for (i64 %s = %s_; %s < %s; %s++) {", v, v, v, hi, v)
		p.block(f.Body, tiles)
		p.line("}")
	}
	p.line("}")
}
