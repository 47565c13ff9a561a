package csource

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/loop"
)

// transposed recognises two loops that copy a matrix with its axes exchanged:
// one variable moves on by one element in the source, the other by one in the
// destination. As loops they read or write single elements far apart; the
// runtime's function exchanges blocks within registers. It gives the call, or "".
func (p *printer) transposed(f *loop.For) string {
	if len(f.Body) != 1 {
		return ""
	}
	g, ok := f.Body[0].(*loop.For)
	if !ok || len(g.Body) != 1 || g.Par {
		return ""
	}
	s, ok := g.Body[0].(*loop.Store)
	if !ok || s.Val.Kind != loop.Load || s.Val.Type != s.Buf.Type {
		return ""
	}
	outer, inner := f.Var, g.Var
	size := s.Buf.Type.Size()
	long, ok := map[int]int{4: 4, 1: 16}[size]
	if !ok || min(outer.N, inner.N) < 4 || max(outer.N, inner.N) < long {
		return ""
	}
	step := func(e *loop.Expr) (do, di int, rest *loop.Expr, ok bool) {
		do, e, ok = loop.Stride(e, outer)
		if !ok {
			return 0, 0, nil, false
		}
		di, rest, ok = loop.Stride(e, inner)
		return do, di, rest, ok
	}
	do, di, dst, ok1 := step(s.Index)
	so, si, src, ok2 := step(s.Val.Args[0])
	if !ok1 || !ok2 {
		return ""
	}
	lo, n := "0", fmt.Sprint(outer.N)
	if f.Par {
		lo, n = "lo", "(hi - lo)"
	}
	at := func(b *loop.Buffer, rest *loop.Expr, step int) string {
		e := b.Name + " + " + p.expr(rest)
		if f.Par {
			e += fmt.Sprintf(" + %s * %d", lo, step)
		}
		return e
	}
	to, from := at(s.Buf, dst, do), at(s.Val.Buf, src, so)
	switch {
	case di == 1 && so == 1 && do >= inner.N && si > 1:
		return fmt.Sprintf("transpose_%d(%s, %d, %s, %d, %d, %s);", 8*size, to, do, from, si, inner.N, n)
	case do == 1 && si == 1 && di > 1 && so > 1:
		return fmt.Sprintf("transpose_%d(%s, %d, %s, %d, %s, %d);", 8*size, to, di, from, so, n, inner.N)
	}
	return ""
}
