package csource

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// hoist names positions that a vector loop looks up and that are the same in all
// its iterations, before the loop. A C compiler that has made vectors of the
// choices in them takes each lane's element from a place of its own. It opens a
// block, which undo closes; nil: there is nothing to name.
func (p *printer) hoist(f *loop.For) (undo func()) {
	stored, set := map[*loop.Buffer]bool{}, map[*loop.Reg]bool{}
	var roots []*loop.Expr
	for _, s := range f.Body {
		switch s := s.(type) {
		case *loop.Store:
			stored[s.Buf] = true
			roots = append(roots, s.Index, s.Val)
		case *loop.Set:
			set[s.Reg] = true
			roots = append(roots, s.Val)
		case *loop.Accum:
			set[s.Reg] = true
			roots = append(roots, s.Val)
		default:
			return nil
		}
	}
	var found []*loop.Expr
	seen := map[string]bool{}
	var visit func(e *loop.Expr)
	visit = func(e *loop.Expr) {
		if seen[e.Key()] || p.temps[e.Key()] != "" {
			return
		}
		seen[e.Key()] = true
		if e.Type == tensor.I64 && settled(e, f.Var, stored, set) {
			found = append(found, e)
			return
		}
		for _, a := range e.Args {
			visit(a)
		}
	}
	for _, e := range roots {
		visit(e)
	}
	if len(found) == 0 {
		return nil
	}
	p.line("{")
	outer := p.indent
	p.indent += "  "
	undoNames := p.name(found...)
	for i, e := range found {
		n := fmt.Sprintf("%s_h%d", f.Var.Name, i)
		p.line("const i64 %s = %s;", n, p.expr(e))
		p.temps[e.Key()] = n
	}
	return func() {
		for _, e := range found {
			delete(p.temps, e.Key())
		}
		undoNames()
		p.indent = outer
		p.line("}")
	}
}

// settled reports a position that is chosen by what memory holds and does not
// change in a loop: it reads elements that the loop does not write, wherever it
// is evaluated.
func settled(e *loop.Expr, v *loop.Var, stored map[*loop.Buffer]bool, set map[*loop.Reg]bool) bool {
	load, choice, ok := false, false, inside(e)
	e.Walk(func(x *loop.Expr) {
		switch x.Kind {
		case loop.Load:
			load = true
			ok = ok && !stored[x.Buf]
		case loop.RegRef:
			ok = ok && !set[x.Reg]
		case loop.VarRef:
			ok = ok && x.Var != v
		case loop.Select:
			choice = true
		}
	})
	return ok && load && choice
}
