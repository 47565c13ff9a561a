package portable

import (
	"fmt"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// stmt is a statement made ready.
type stmt func(f *frame)

// code is a kernel made ready.
type code struct {
	kernel *loop.Kernel
	sizes  sizes
	body   []stmt
	par    *loop.For // its iterations threads may share; body is then its body
	slot   int       // of the variable of par
	lanes  lanes     // the body of par, if that is a vector loop
}

// builder makes the code of one kernel.
type builder struct {
	c    *code
	vars map[*loop.Var]int
	regs map[*loop.Reg]int
	bufs map[*loop.Buffer]int
	lane *lane           // of the vector loop that is being made; nil outside
	uses map[string]int  // how often each expression of the statement occurs
	done map[string]val  // expressions of the statement that are made
	vecs map[string]*vec // the same, as slices
	safe map[string]bool
}

// compile makes a kernel ready. An error says that the kernel is malformed.
func compile(k *loop.Kernel) (c *code, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(malformed)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("kernel %s: %w", k.Family, m.error)
		}
	}()
	c = &code{kernel: k}
	b := &builder{c: c, vars: map[*loop.Var]int{}, regs: map[*loop.Reg]int{}, bufs: map[*loop.Buffer]int{}, safe: map[string]bool{}}
	for i, p := range k.Params {
		b.bufs[p] = i
	}
	for i, l := range k.Locals {
		b.bufs[l] = len(k.Params) + i
	}
	if c.par = k.ParallelLoop(); c.par != nil {
		c.slot = b.variable(c.par.Var)
		if c.par.Kind == loop.Vector && vectorizable(c.par) {
			c.lanes = b.vectorLoop(c.par)
			return c, nil
		}
		c.body = b.body(c.par.Body)
		return c, nil
	}
	c.body = b.body(k.Body)
	return c, nil
}

// malformed is an error in a kernel, found while it is made ready.
type malformed struct{ error }

func reject(format string, args ...any) {
	panic(malformed{fmt.Errorf(format, args...)})
}

func (b *builder) variable(v *loop.Var) int {
	s, ok := b.vars[v]
	if !ok {
		s = b.c.sizes.vars
		b.vars[v] = s
		b.c.sizes.vars++
	}
	return s
}

func (b *builder) register(r *loop.Reg) int {
	s, ok := b.regs[r]
	if !ok {
		n := &b.c.sizes.in
		if r.Type.IsFloat() {
			n = &b.c.sizes.fl
		}
		s = *n
		b.regs[r] = s
		*n++
	}
	return s
}

func (b *builder) buffer(q *loop.Buffer) int {
	s, ok := b.bufs[q]
	if !ok {
		reject("it has no buffer %s", q.Name)
	}
	return s
}

// begin starts a statement with the expressions that it will evaluate.
func (b *builder) begin(roots ...*loop.Expr) {
	b.uses, b.done, b.vecs = map[string]int{}, map[string]val{}, map[string]*vec{}
	var visit func(e *loop.Expr)
	visit = func(e *loop.Expr) {
		k := e.Key()
		b.uses[k]++
		if b.uses[k] > 1 {
			return
		}
		for _, a := range e.Args {
			visit(a)
		}
	}
	for _, r := range roots {
		visit(r)
	}
}

func (b *builder) body(list []loop.Stmt) []stmt {
	var out []stmt
	for _, s := range list {
		out = append(out, b.stmt(s))
	}
	return out
}

func run(list []stmt, f *frame) {
	for _, s := range list {
		s(f)
	}
}

// typed rejects a statement that gives a value of another type than its target.
func typed(what string, want tensor.DType, e *loop.Expr) {
	if e.Type != want {
		reject("%s of type %s is given %s: %s", what, want, e.Type, e.Key())
	}
}

func (b *builder) stmt(s loop.Stmt) stmt {
	switch s := s.(type) {
	case *loop.For:
		return b.loop(s)
	case *loop.Store:
		return b.store(s)
	case *loop.Set:
		typed("register "+s.Reg.Name, s.Reg.Type, s.Val)
		b.begin(s.Val)
		return b.assign(s.Reg, b.value(s.Val))
	case *loop.Accum:
		return b.accum(s)
	case *loop.Cond:
		b.begin(s.If)
		c := b.value(s.If).i
		then, other := b.body(s.Then), b.body(s.Else)
		return func(f *frame) {
			f.stamp++
			if c(f) != 0 {
				run(then, f)
			} else {
				run(other, f)
			}
		}
	case *loop.Zero:
		return b.zero(s)
	case *loop.Tile:
		return b.tile(s)
	}
	reject("a statement of type %T is not known", s)
	return nil
}

func (b *builder) loop(f *loop.For) stmt {
	if f.Kind == loop.Vector && vectorizable(f) {
		v, n := b.vectorLoop(f), f.Var.N
		return func(fr *frame) { v.run(fr, 0, n) }
	}
	slot, n := b.variable(f.Var), f.Var.N
	body := b.body(f.Body)
	if len(body) == 1 {
		only := body[0]
		return func(fr *frame) {
			for i := range n {
				fr.vars[slot] = i
				only(fr)
			}
		}
	}
	return func(fr *frame) {
		for i := range n {
			fr.vars[slot] = i
			run(body, fr)
		}
	}
}

func (b *builder) assign(r *loop.Reg, v val) stmt {
	s := b.register(r)
	if r.Type.IsFloat() {
		return func(f *frame) { f.stamp++; f.fl[s] = v.f(f) }
	}
	return func(f *frame) { f.stamp++; f.in[s] = v.i(f) }
}

func (b *builder) accum(a *loop.Accum) stmt {
	typed("register "+a.Reg.Name, a.Reg.Type, a.Val)
	b.begin(a.Val)
	v, s := b.value(a.Val), b.register(a.Reg)
	d := a.Reg.Type
	if d.IsFloat() {
		g := binaryFloat(a.Fn, d)
		return func(f *frame) { f.stamp++; x := v.f(f); f.fl[s] = g(f.fl[s], x) }
	}
	g := binaryInt(a.Fn, d, d)
	return func(f *frame) { f.stamp++; x := v.i(f); f.in[s] = g(f.in[s], x) }
}

func (b *builder) store(s *loop.Store) stmt {
	typed("buffer "+s.Buf.Name, s.Buf.Type, s.Val)
	b.begin(s.Index, s.Val)
	at, v, q := b.index(s.Index), b.value(s.Val), b.buffer(s.Buf)
	switch d := s.Buf.Type; d {
	case tensor.F32:
		return func(f *frame) { f.stamp++; x := v.f(f); f.bufs[q].f32[at(f)] = float32(x) }
	case tensor.F64:
		return func(f *frame) { f.stamp++; x := v.f(f); f.bufs[q].f64[at(f)] = x }
	case tensor.F16, tensor.BF16:
		return func(f *frame) { f.stamp++; x := v.f(f); f.bufs[q].u16[at(f)] = uint16(scalar.ToBits(d, x)) }
	case tensor.I8:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].i8[at(f)] = int8(x) }
	case tensor.I16:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].i16[at(f)] = int16(x) }
	case tensor.I32:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].i32[at(f)] = int32(x) }
	case tensor.I64, tensor.U64:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].i64[at(f)] = x }
	case tensor.U8, tensor.Bool:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].u8[at(f)] = uint8(x) }
	case tensor.U16:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].u16[at(f)] = uint16(x) }
	case tensor.U32:
		return func(f *frame) { f.stamp++; x := v.i(f); f.bufs[q].u32[at(f)] = uint32(x) }
	}
	reject("a store of %s", s.Buf.Type)
	return nil
}

func (b *builder) zero(z *loop.Zero) stmt {
	b.begin(z.From)
	at, q, n := b.index(z.From), b.buffer(z.Buf), z.N
	return func(f *frame) {
		f.stamp++
		i, m := at(f), &f.bufs[q]
		switch {
		case m.f32 != nil:
			clear(m.f32[i : i+n])
		case m.f64 != nil:
			clear(m.f64[i : i+n])
		case m.i64 != nil:
			clear(m.i64[i : i+n])
		case m.i32 != nil:
			clear(m.i32[i : i+n])
		case m.u32 != nil:
			clear(m.u32[i : i+n])
		case m.i16 != nil:
			clear(m.i16[i : i+n])
		case m.u16 != nil:
			clear(m.u16[i : i+n])
		case m.i8 != nil:
			clear(m.i8[i : i+n])
		case m.u8 != nil:
			clear(m.u8[i : i+n])
		}
	}
}
