package csource

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Some vector loops are printed in strips of whole vectors instead of being left
// to OpenMP. Reductions: gcc keeps one accumulator, so that each step waits for
// the one before, and adds up its lanes one by one at the end. Functions that
// the runtime has for whole registers: their arguments are put into an array,
// which never leaves its register.

// registerCalls are the scalar functions that the runtime has for arrays of
// that many elements, if the target has the feature.
var registerCalls = map[string]bool{"exp": true, "expneg": true, "tanh": true, "erf": true, "sin": true, "cos": true}

const (
	callLanes   = 16
	callFeature = "avx512f"
)

// strips is how a vector loop is printed.
type strips struct {
	*printer
	f     *loop.For
	tiles *tilePrinter
	w     int           // elements of a strip
	side  int           // strips side by side, each with its accumulators
	accs  []*loop.Accum // what is accumulated
	calls []*loop.Expr  // calls of functions that take registers, inner ones first
	bytes []*loop.Expr  // loads that are widened before the strip: gcc would make its vectors as long as theirs
}

// strip finds out whether a loop is printed in strips; nil: it is not.
func (p *printer) strip(f *loop.For, tiles *tilePrinter) *strips {
	if f.Kind != loop.Vector {
		return nil
	}
	s := &strips{printer: p, f: f, tiles: tiles, w: tiles.traits.Lanes, side: 1}
	cost := 0
	for _, st := range f.Body {
		switch st := st.(type) {
		case *loop.Accum:
			if !st.Reg.Type.IsFloat() && !counts(st) || neutral[st.Fn] == "" || f.Par || p.regs[st.Reg] != "" {
				return nil
			}
			if !slices.ContainsFunc(s.accs, func(a *loop.Accum) bool { return a.Reg == st.Reg }) {
				s.accs = append(s.accs, st)
			}
			cost += st.Val.Cost() + 1
		case *loop.Set:
			if !st.Decl {
				return nil
			}
			cost += st.Val.Cost()
		case *loop.Store:
			cost += st.Val.Cost()
		default:
			return nil
		}
	}
	for s.w > f.Var.N {
		s.w /= 2
	}
	if s.w < 4 {
		return nil
	}
	if s.w == callLanes && tiles.traits.Has(callFeature) {
		s.calls = registered(f)
	}
	s.bytes = byteLoads(f, s.w)
	if len(s.accs) == 0 && len(s.calls) == 0 || len(s.calls) == 0 && cost > 64 {
		return nil
	}
	for len(s.calls) == 0 && s.side < 4 && 2*s.side*s.w <= f.Var.N && 2*s.side*cost <= 48 {
		s.side *= 2
	}
	return s
}

// widened are the types of bytes, and how the runtime names them.
var widened = map[tensor.DType]string{tensor.Bool: "u8", tensor.U8: "u8", tensor.I8: "i8"}

// byteLoads lists the loads of neighbouring bytes in a loop's body.
func byteLoads(f *loop.For, width int) (out []*loop.Expr) {
	if width < 8 {
		return nil
	}
	seen := map[string]bool{}
	find := func(e *loop.Expr) {
		e.Walk(func(x *loop.Expr) {
			if x.Kind != loop.Load || widened[x.Type] == "" || seen[x.Key()] {
				return
			}
			seen[x.Key()] = true
			step, affine := loop.Coef(x.Args[0], f.Var)
			lo, hi := loop.Range(x.Args[0])
			if affine && step == 1 && lo >= 0 && hi < int64(x.Buf.Len) {
				out = append(out, x)
			}
		})
	}
	for _, st := range f.Body {
		switch st := st.(type) {
		case *loop.Set:
			find(st.Val)
		case *loop.Accum:
			find(st.Val)
		case *loop.Store:
			if widened[st.Buf.Type] != "" {
				return nil
			}
			find(st.Val)
		}
	}
	return out
}

// counts reports a sum of whole numbers over elements of one width.
func counts(a *loop.Accum) bool {
	ok := a.Fn == "add" && a.Reg.Type == tensor.I32
	a.Val.Walk(func(e *loop.Expr) { ok = ok && (e.Kind != loop.Load || e.Type.Size() == 4) })
	return ok
}

// registered lists the calls of a loop's body that can be done for a whole
// strip before the rest of it.
func registered(f *loop.For) []*loop.Expr {
	declared := map[*loop.Reg]bool{}
	stored := map[*loop.Buffer]string{} // where; "?" if in several places
	for _, st := range f.Body {
		switch st := st.(type) {
		case *loop.Set:
			declared[st.Reg] = true
		case *loop.Accum:
			declared[st.Reg] = true
		case *loop.Store:
			step, affine := loop.Coef(st.Index, f.Var)
			if at := st.Index.Key(); stored[st.Buf] == "" && affine && step == 1 {
				stored[st.Buf] = at
			} else {
				stored[st.Buf] = "?"
			}
		}
	}
	done := map[*loop.Buffer]bool{} // stored by the statements before
	free := func(e *loop.Expr) bool {
		ok := inside(e)
		e.Walk(func(x *loop.Expr) {
			ok = ok && !(x.Kind == loop.RegRef && declared[x.Reg]) && !(x.Kind == loop.Load && stored[x.Buf] != "" && (done[x.Buf] || stored[x.Buf] != x.Args[0].Key()))
		})
		return ok
	}
	var out []*loop.Expr
	seen := map[string]bool{}
	var visit func(e *loop.Expr)
	visit = func(e *loop.Expr) {
		if seen[e.Key()] {
			return
		}
		seen[e.Key()] = true
		for _, a := range e.Args {
			visit(a)
		}
		if e.Kind == loop.Call && registerCalls[e.Fn] && e.Type == tensor.F32 && free(e) {
			out = append(out, e)
		}
	}
	for _, st := range f.Body {
		switch st := st.(type) {
		case *loop.Set:
			visit(st.Val)
		case *loop.Accum:
			visit(st.Val)
		case *loop.Store:
			visit(st.Val)
			done[st.Buf] = true
		}
	}
	return out
}

// neutral is what changes no result of an accumulation.
var neutral = map[string]string{"add": "0", "mul": "1", "max": "-%s_INF", "min": "%s_INF"}

func identity(a *loop.Accum) string {
	s := neutral[a.Fn]
	if a.Fn == "max" || a.Fn == "min" {
		s = fmt.Sprintf(s, map[tensor.DType]string{tensor.F32: "F32", tensor.F64: "F64"}[a.Reg.Type])
	}
	return s
}

// simd prints a loop over the lanes of a strip.
func (s *strips) simd(n int, body func()) {
	s.line("#pragma omp simd")
	s.line("for (int l = 0; l < %d; l++) {", n)
	in := s.indent
	s.indent += "  "
	body()
	s.indent = in
	s.line("}")
}

func lanesOf(a *loop.Accum, side int) string { return fmt.Sprintf("%s_l%d", a.Reg.Name, side) }

// print prints the loop over its range.
func (s *strips) print(lo, hi string) {
	for side := range s.side {
		for _, a := range s.accs {
			s.line("%s %s[%d] __attribute__((aligned(64)));", cType[a.Reg.Type], lanesOf(a, side), s.w)
			s.simd(s.w, func() { s.line("%s[l] = %s;", lanesOf(a, side), identity(a)) })
		}
	}
	v, n := s.f.Var.Name, s.f.Var.N
	s.line("{ i64 %s_b = %s;", v, lo)
	for _, side := range []int{s.side, 1} {
		if side == 1 && s.side > 1 && n%(s.side*s.w) < s.w {
			break
		}
		s.line("for (; %s_b + %d <= %s; %s_b += %d) {", v, side*s.w, hi, v, side*s.w)
		in := s.indent
		s.indent += "  "
		for i := range side {
			s.one(fmt.Sprintf("%s_b + %d", v, i*s.w), i, 0)
		}
		s.indent = in
		s.line("}")
		if s.side == 1 {
			break
		}
	}
	switch rest := n % s.w; {
	case s.f.Par:
		s.partial(hi)
	case rest > 0 && again(s.f):
		s.one(fmt.Sprint(n-s.w), 0, rest)
	case rest > 0:
		s.partial(hi)
	}
	s.line("}")
	s.join()
}

// one prints a strip. If only the last lanes are new, those before them are
// done again, and are not accumulated.
func (s *strips) one(at string, side, fresh int) {
	v := s.f.Var.Name
	s.line("{")
	in := s.indent
	s.indent += "  "
	undo := s.arguments(at, fmt.Sprint(s.w))
	s.simd(s.w, func() {
		s.line("const i64 %s = %s + l; (void)%s;", v, at, v)
		s.rename(side, func() {
			for _, st := range s.f.Body {
				a, ok := st.(*loop.Accum)
				if !ok || fresh == 0 {
					s.stmt(st, s.tiles)
					continue
				}
				undo := s.name(a.Val)
				s.line("const %s %s_v = l >= %d ? %s : %s;", cType[a.Reg.Type], a.Reg.Name, s.w-fresh, s.expr(a.Val), identity(a))
				undo()
				s.line("%[1]s = %[2]s;", s.expr(loop.R(a.Reg)), s.combine(a, a.Reg.Name+"_v", s.expr(loop.R(a.Reg))))
			}
		})
	})
	undo()
	s.indent = in
	s.line("}")
}

// combine prints a step of an accumulation.
func (s *strips) combine(a *loop.Accum, x, y string) string {
	if op := operators[a.Fn]; op != "" {
		return "(" + x + " " + op + " " + y + ")"
	}
	return fmt.Sprintf("%s_%s(%s, %s)", a.Fn, a.Reg.Type, x, y)
}

// arguments prints the calls for a strip of n lanes; undo takes their names back.
func (s *strips) arguments(at, n string) (undo func()) {
	v := s.f.Var.Name
	for i, e := range s.bytes {
		if n != fmt.Sprint(s.w) {
			break // what is left is done one by one
		}
		s.line("i32 %s_m%d[%d]; { const i64 %s = %s; widen%d_%s(%s_m%d, (const %s *)%s + %s); }", v, i, s.w, v, at, s.w, widened[e.Type], v, i, widened[e.Type], e.Buf.Name, s.expr(e.Args[0]))
		s.temps[e.Key()] = fmt.Sprintf("%s_m%d[l]", v, i)
	}
	for i, c := range s.calls {
		t := fmt.Sprintf("%s_t%d", v, i)
		s.line("float %s[%d] __attribute__((aligned(64)));", t, callLanes)
		body := func() {
			s.line("const i64 %s = %s + l; (void)%s;", v, at, v)
			undo := s.name(c.Args[0])
			s.line("%s[l] = %s;", t, s.expr(c.Args[0]))
			undo()
		}
		if n == fmt.Sprint(s.w) {
			s.simd(s.w, body)
		} else {
			s.line("memset(%s, 0, sizeof %s);", t, t)
			s.line("for (int l = 0; l < %s; l++) {", n)
			body()
			s.line("}")
		}
		s.line("%s_f32_v%d(%s);", c.Fn, callLanes, t)
		s.temps[c.Key()] = t + "[l]"
	}
	return func() {
		for _, c := range slices.Concat(s.calls, s.bytes) {
			delete(s.temps, c.Key())
		}
	}
}

// rename lets accumulators stand for their lanes.
func (s *strips) rename(side int, body func()) {
	for _, a := range s.accs {
		s.regs[a.Reg] = lanesOf(a, side) + "[l]"
	}
	body()
	for _, a := range s.accs {
		delete(s.regs, a.Reg)
	}
}

// partial prints what is left after the last whole strip.
func (s *strips) partial(hi string) {
	v := s.f.Var.Name
	s.line("if (%s_b < %s) {", v, hi)
	in := s.indent
	s.indent += "  "
	s.line("const int %s_n = (int)(%s - %s_b);", v, hi, v)
	undo := s.arguments(v+"_b", v+"_n")
	s.line("for (int l = 0; l < %s_n; l++) {", v)
	s.line("const i64 %s = %s_b + l; (void)%s;", v, v, v)
	s.rename(0, func() { s.body(s.f.Body, s.tiles) })
	s.line("}")
	undo()
	s.indent = in
	s.line("}")
}

// join brings the lanes of the accumulators together, halves at a time.
func (s *strips) join() {
	for _, a := range s.accs {
		first := lanesOf(a, 0)
		for half := s.side / 2; half >= 1; half /= 2 {
			for i := range half {
				s.simd(s.w, func() {
					s.line("%s[l] = %s;", lanesOf(a, i), s.combine(a, lanesOf(a, i)+"[l]", lanesOf(a, i+half)+"[l]"))
				})
			}
		}
		if s.w == callLanes && a.Reg.Type == tensor.F32 && (a.Fn == "max" || a.Fn == "min") && s.tiles.traits.Has(callFeature) {
			s.line("%[1]s = %[2]s;", a.Reg.Name, s.combine(a, a.Reg.Name, fmt.Sprintf("%s_of_v%d(%s)", a.Fn, callLanes, first)))
			continue
		}
		for half := s.w / 2; half >= 1; half /= 2 {
			s.simd(half, func() {
				s.line("%s[l] = %s;", first, s.combine(a, first+"[l]", fmt.Sprintf("%s[l + %d]", first, half)))
			})
		}
		s.line("%[1]s = %[2]s;", a.Reg.Name, s.combine(a, a.Reg.Name, first+"[0]"))
	}
}

// again reports whether iterations of a loop may run twice but for what they
// accumulate: what they read is not stored by others.
func again(f *loop.For) bool {
	stored := map[*loop.Buffer]bool{}
	ok := true
	for _, st := range f.Body {
		if st, is := st.(*loop.Store); is {
			ok = ok && !stored[st.Buf]
			stored[st.Buf] = true
		}
	}
	at := map[*loop.Buffer]string{}
	read := func(e *loop.Expr) {
		e.Walk(func(x *loop.Expr) {
			if x.Kind == loop.Load && stored[x.Buf] {
				ok = ok && at[x.Buf] == x.Args[0].Key()
			}
		})
	}
	for _, st := range f.Body {
		switch st := st.(type) {
		case *loop.Set:
			read(st.Val)
		case *loop.Accum:
			read(st.Val)
		case *loop.Store:
			read(st.Index)
			read(st.Val)
			at[st.Buf] = st.Index.Key()
		}
	}
	return ok
}
