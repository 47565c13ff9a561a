package csource

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// KernelName is the C name of a kernel: its family and a hash of what it
// computes, so that equal kernels of any model have equal names and objects.
func KernelName(k *loop.Kernel) string {
	h := sha256.Sum256([]byte(k.String()))
	return "k_" + k.Family + "_" + hex.EncodeToString(h[:8])
}

// Signature is the C declaration of a kernel. The range lo, hi is that of the
// parallel loop; kernels without one ignore it.
func Signature(k *loop.Kernel) string {
	var a []string
	for _, p := range k.Params {
		c := "const "
		if p.Out {
			c = ""
		}
		a = append(a, fmt.Sprintf("%s%s *restrict %s", c, cType[p.Type], p.Name))
	}
	a = append(a, "i64 lo", "i64 hi")
	return fmt.Sprintf("void %s(%s)", KernelName(k), strings.Join(a, ", "))
}

// stackLocal is the largest local array, in bytes, that lies on the stack;
// larger ones lie in the thread's part of the workspace.
const stackLocal = 8192

// Scratch is how many bytes of the workspace a thread needs to run a kernel.
func Scratch(k *loop.Kernel) int {
	n := 0
	for _, l := range k.Locals {
		if s := l.Len * l.Type.Size(); s > stackLocal {
			n += program.Pad(s)
		}
	}
	return n
}

// Kernel prints a kernel as a C function.
func Kernel(k *loop.Kernel, t backend.Traits) string {
	p := &printer{kernel: k, b: &strings.Builder{}, temps: map[string]string{}, needs: map[string]bool{}, regs: map[*loop.Reg]string{}}
	tiles := &tilePrinter{traits: t, names: map[string]string{}, prefix: KernelName(k)}
	p.tile(tiles, k.Body)
	head := tiles.b.String()
	p.line("%s {", Signature(k))
	p.indent = "  "
	p.line("(void)lo; (void)hi;")
	at := 0
	for _, l := range k.Locals {
		if n := l.Len * l.Type.Size(); n > stackLocal {
			p.line("%s *restrict const %s = (void *)(lathe_scratch + %d);", cType[l.Type], l.Name, at)
			at += program.Pad(n)
			continue
		}
		p.line("%s %s[%d] __attribute__((aligned(64)));", cType[l.Type], l.Name, l.Len)
	}
	p.onUnit(k.Body, tiles)
	p.indent = ""
	p.line("}")
	return head + p.teams.String() + p.b.String()
}

// tile prints the register tiles of a body as functions of their own.
func (p *printer) tile(t *tilePrinter, body []loop.Stmt) {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.For:
			p.tile(t, s.Body)
		case *loop.Cond:
			p.tile(t, s.Then)
			p.tile(t, s.Else)
		case *loop.Tile:
			t.define(s)
		}
	}
}

func (p *printer) body(body []loop.Stmt, tiles *tilePrinter) {
	for _, s := range body {
		p.stmt(s, tiles)
	}
}

func (p *printer) stmt(s loop.Stmt, tiles *tilePrinter) {
	switch s := s.(type) {
	case *loop.For:
		p.loop(s, tiles)
	case *loop.Store:
		p.store(s)
	case *loop.Set:
		p.set(s)
	case *loop.Accum:
		undo := p.name(s.Val)
		p.line("%s = %s;", p.expr(loop.R(s.Reg)), p.expr(loop.Fn(s.Fn, ordered(s)...)))
		undo()
	case *loop.Cond:
		undo := p.name(s.If)
		p.line("if (%s) {", p.expr(s.If))
		undo()
		p.block(s.Then, tiles)
		if len(s.Else) > 0 {
			p.line("} else {")
			p.block(s.Else, tiles)
		}
		p.line("}")
	case *loop.Zero:
		p.line("memset(%s + %s, %d, %d);", s.Buf.Name, p.expr(s.From), s.Fill, s.N*s.Buf.Type.Size())
	case *loop.Tile:
		p.line("%s;", tiles.call(s, p))
	}
}

// ordered gives the operands of an accumulation. Extremes keep NaN by looking at
// their first operand: that of the new element is done ahead.
func ordered(s *loop.Accum) []*loop.Expr {
	if s.Fn == "max" || s.Fn == "min" {
		return []*loop.Expr{s.Val, loop.R(s.Reg)}
	}
	return []*loop.Expr{loop.R(s.Reg), s.Val}
}

func (p *printer) store(s *loop.Store) {
	if e := s.Val; p.vector && e.Kind == loop.Select && e.Args[1].Kind != loop.Const && inside(e.Args[1]) && inside(e.Args[2]) {
		// Both sides may be computed: no masked loads, whose addresses GCC 12 gets
		// wrong where it shares them with later iterations (-fivopts).
		undo := p.name(s.Index, e.Args[0], e.Args[1], e.Args[2])
		t := cType[e.Type]
		p.line("const %s yes_ = %s, no_ = %s;", t, p.expr(e.Args[1]), p.expr(e.Args[2]))
		p.line("%s[%s] = %s ? yes_ : no_;", s.Buf.Name, p.expr(s.Index), p.expr(e.Args[0]))
		undo()
		return
	}
	undo := p.name(s.Index, s.Val)
	p.line("%s[%s] = %s;", s.Buf.Name, p.expr(s.Index), p.expr(s.Val))
	undo()
}

func (p *printer) set(s *loop.Set) {
	if s.Decl {
		// The value's temporaries must not end the register's scope.
		p.line("%s %s;", cType[s.Reg.Type], s.Reg.Name)
	}
	undo := p.name(s.Val)
	p.line("%s = %s;", s.Reg.Name, p.expr(s.Val))
	undo()
}

func (p *printer) block(body []loop.Stmt, tiles *tilePrinter) {
	in := p.indent
	p.indent += "  "
	p.body(body, tiles)
	p.indent = in
}

func (p *printer) loop(f *loop.For, tiles *tilePrinter) {
	if f.Team {
		p.team(f, tiles)
		return
	}
	for _, call := range []string{p.transposed(f), p.lookup(f), p.sum(f)} {
		if call != "" {
			p.line("%s", call)
			return
		}
	}
	if f.Kind == loop.Vector {
		if undo := p.hoist(f); undo != nil {
			defer undo()
		}
	}
	p.vars = append(p.vars, f.Var)
	defer func() { p.vars = p.vars[:len(p.vars)-1] }()
	lo, hi := "0", fmt.Sprint(f.Var.N)
	if f.Par {
		lo, hi = "lo", "hi"
	}
	if s, loads, ok := mixed(f, tiles.traits); ok {
		p.blocks(f, s, loads, tiles.traits.Lanes, lo, hi, tiles)
		return
	}
	vector := f.Kind == loop.Vector && !guardedGroup(f)
	if s := p.strip(f, tiles); s != nil && vector {
		s.print(lo, hi)
		return
	}
	if n := tiles.traits.Lanes; f.Var.N > n && f.Var.N < 32*n && f.Var.N%n != 0 && vector && repeatable(f) {
		p.overlapped(f, n, tiles)
		return
	}
	if vector {
		p.line("#pragma omp simd%s", reductions(f.Body))
		p.vector = len(f.Body) == 1
		defer func() { p.vector = false }()
	}
	p.line("for (i64 %s = %s; %s < %s; %s++) {", f.Var.Name, lo, f.Var.Name, hi, f.Var.Name)
	p.block(f.Body, tiles)
	p.line("}")
}

// ompOps are OpenMP's names of the reductions.
var ompOps = map[string]string{"add": "+", "mul": "*", "min": "min", "max": "max", "and": "&", "or": "|"}

// guardedGroup reports a loop with several stores of elements that are read only
// under a condition, because they may lie outside their buffers: GCC 12 makes one
// masked load of neighbours that two statements read, and gets it wrong.
func guardedGroup(f *loop.For) bool {
	stores, guarded := 0, false
	for _, s := range f.Body {
		if s, ok := s.(*loop.Store); ok {
			stores++
			s.Val.Walk(func(e *loop.Expr) {
				guarded = guarded || e.Kind == loop.Select && !(inside(e.Args[1]) && inside(e.Args[2]))
			})
		}
	}
	return stores > 1 && guarded
}

// repeatable reports whether iterations of a vector loop may run twice, and are
// worth it: they store what does not depend on what they store, and read
// elements that lie together.
func repeatable(f *loop.For) bool {
	if f.Kind != loop.Vector || f.Par {
		return false
	}
	stored := map[*loop.Buffer]bool{}
	var read []*loop.Expr
	for _, s := range f.Body {
		switch s := s.(type) {
		case *loop.Store:
			stored[s.Buf] = true
			read = append(read, s.Index, s.Val)
		case *loop.Set:
			if !s.Decl {
				return false
			}
			read = append(read, s.Val)
		default:
			return false
		}
	}
	ok, cost := true, 0
	for _, e := range read {
		cost += e.Cost()
		e.Walk(func(x *loop.Expr) {
			if x.Kind == loop.Load {
				step, _, affine := loop.Stride(x.Args[0], f.Var)
				ok = ok && !stored[x.Buf] && affine && step >= 0 && step <= 4
			}
		})
	}
	return ok && cost < 64
}

// overlapped prints a short vector loop with a last vector that overlaps the
// one before it: gcc would compute what is left over one by one.
func (p *printer) overlapped(f *loop.For, n int, tiles *tilePrinter) {
	v := f.Var.Name
	p.line("#pragma omp simd")
	p.line("for (i64 %s = 0; %s < %d; %s++) {", v, v, f.Var.N-f.Var.N%n, v)
	p.block(f.Body, tiles)
	p.line("}")
	p.line("#pragma omp simd")
	p.line("for (i64 %s = %d; %s < %d; %s++) {", v, f.Var.N-n, v, f.Var.N, v)
	p.block(f.Body, tiles)
	p.line("}")
}

func reductions(body []loop.Stmt) string {
	s := ""
	for _, st := range body {
		if a, ok := st.(*loop.Accum); ok {
			op := ompOps[a.Fn]
			if (a.Fn == "min" || a.Fn == "max") && a.Reg.Type.Kind() == tensor.KindFloat {
				op = a.Fn + "_" + a.Reg.Type.String() // ours keep NaN
			}
			s += fmt.Sprintf(" reduction(%s:%s)", op, a.Reg.Name)
		}
	}
	return s
}
