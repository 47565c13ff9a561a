package portable

import (
	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxChunk is how many lanes are computed at once: intermediate slices of 2 KB
// stay in the first cache.
const maxChunk = 512

// lanes is the body of a vector loop: it computes n lanes from lo on.
type lanes func(f *frame, lo, n int)

// run computes a range of lanes by chunks.
func (l lanes) run(f *frame, lo, hi int) {
	for ; lo < hi; lo += maxChunk {
		n := min(maxChunk, hi-lo)
		f.base = lo
		l(f, lo, n)
	}
}

// lane is what the builder knows inside a vector loop.
type lane struct {
	v       *loop.Var
	private map[*loop.Reg]*vec // registers that each lane has for itself
	written map[*loop.Buffer]bool
	varies  map[string]bool
}

// vectorizable reports loops whose iterations can run statement by statement:
// no inner loops, and registers are set where they are declared.
func vectorizable(f *loop.For) bool {
	declared := map[*loop.Reg]bool{}
	var ok func(body []loop.Stmt, top bool) bool
	ok = func(body []loop.Stmt, top bool) bool {
		for _, s := range body {
			switch s := s.(type) {
			case *loop.Store, *loop.Accum:
			case *loop.Set:
				if s.Decl && top {
					declared[s.Reg] = true
				}
				if !declared[s.Reg] {
					return false
				}
			case *loop.Cond:
				if !ok(s.Then, false) || !ok(s.Else, false) {
					return false
				}
			default:
				return false
			}
		}
		return true
	}
	return f.Var.N > 1 && ok(f.Body, true)
}

// vec computes an expression for a range of lanes: the slice that it gives is
// dst, scratch, or the memory that it reads. Exactly one of the functions is
// set. dst may be nil.
type vec struct {
	f32 func(f *frame, lo, n int, dst []float32) []float32 // F32, F16, BF16
	f64 func(f *frame, lo, n int, dst []float64) []float64
	i64 func(f *frame, lo, n int, dst []int64) []int64 // all others
	uni *val                                           // not nil: the same for all lanes
}

func (b *builder) vectorLoop(f *loop.For) lanes {
	outer := b.lane
	b.lane = &lane{v: f.Var, private: map[*loop.Reg]*vec{}, written: map[*loop.Buffer]bool{}, varies: map[string]bool{}}
	defer func() { b.lane = outer }()
	b.variable(f.Var)
	b.c.sizes.chunk = max(b.c.sizes.chunk, min(f.Var.N, maxChunk))
	b.note(f.Body)
	return b.laneBody(f.Body)
}

// note finds what the loop writes.
func (b *builder) note(body []loop.Stmt) {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.Store:
			b.lane.written[s.Buf] = true
		case *loop.Set:
			b.lane.private[s.Reg] = nil
		case *loop.Cond:
			b.note(s.Then)
			b.note(s.Else)
		}
	}
}

func (b *builder) laneBody(body []loop.Stmt) lanes {
	var list []lanes
	for _, s := range body {
		list = append(list, b.laneStmt(s))
	}
	if len(list) == 1 {
		return list[0]
	}
	return func(f *frame, lo, n int) {
		for _, l := range list {
			l(f, lo, n)
		}
	}
}

func (b *builder) laneStmt(s loop.Stmt) lanes {
	switch s := s.(type) {
	case *loop.Store:
		return b.laneStore(s)
	case *loop.Set:
		typed("register "+s.Reg.Name, s.Reg.Type, s.Val)
		b.begin(s.Val)
		return b.laneSet(s.Reg, b.slice(s.Val))
	case *loop.Accum:
		typed("register "+s.Reg.Name, s.Reg.Type, s.Val)
		if _, private := b.lane.private[s.Reg]; private {
			e := loop.Fn(s.Fn, loop.R(s.Reg), s.Val)
			b.begin(e)
			return b.laneSet(s.Reg, b.slice(e))
		}
		b.begin(s.Val)
		return b.laneAccum(s)
	case *loop.Cond:
		b.begin(s.If)
		c := b.choice(s.If)
		then, other := b.laneBody(s.Then), b.laneBody(s.Else)
		return func(f *frame, lo, n int) {
			f.stamp++
			c.split(f, lo, n, then, other)
		}
	}
	reject("a statement of type %T in a vector loop", s)
	return nil
}

// varies reports whether an expression differs between lanes.
func (b *builder) varies(e *loop.Expr) bool {
	k := e.Key()
	v, ok := b.lane.varies[k]
	if ok {
		return v
	}
	switch e.Kind {
	case loop.VarRef:
		v = e.Var == b.lane.v
	case loop.RegRef:
		_, v = b.lane.private[e.Reg]
	case loop.Load:
		v = b.lane.written[e.Buf]
	}
	for _, a := range e.Args {
		v = v || b.varies(a)
	}
	b.lane.varies[k] = v
	return v
}

func isF32(d tensor.DType) bool { return d.IsFloat() && d != tensor.F64 }

func (b *builder) newF32() int { b.c.sizes.f32++; return b.c.sizes.f32 - 1 }
func (b *builder) newF64() int { b.c.sizes.f64++; return b.c.sizes.f64 - 1 }
func (b *builder) newI64() int { b.c.sizes.i64++; return b.c.sizes.i64 - 1 }

// at32 is where an expression's lanes lie in its scratch: a lane has one place,
// so that computing a part again does no harm.
func (f *frame) at32(s, lo, n int) []float32 { return f.f32[s][lo-f.base : lo-f.base+n] }
func (f *frame) at64(s, lo, n int) []float64 { return f.f64[s][lo-f.base : lo-f.base+n] }
func (f *frame) atI(s, lo, n int) []int64    { return f.i64[s][lo-f.base : lo-f.base+n] }

// slice makes an expression for ranges of lanes.
func (b *builder) slice(e *loop.Expr) *vec {
	k := e.Key()
	if v := b.vecs[k]; v != nil {
		return v
	}
	var v *vec
	if !b.varies(e) {
		v = b.uniform(e)
	} else {
		v = b.sliceOf(e)
		if b.uses[k] > 1 && e.Kind != loop.Load && e.Kind != loop.RegRef {
			v = b.onceSlice(v)
		}
	}
	b.vecs[k] = v
	return v
}

func fill[T any](dst []T, x T) []T {
	for i := range dst {
		dst[i] = x
	}
	return dst
}

// uniform spreads one value over the lanes.
func (b *builder) uniform(e *loop.Expr) *vec {
	x := b.value(e)
	v := &vec{uni: &x}
	switch {
	case isF32(e.Type):
		s := b.newF32()
		v.f32 = func(f *frame, lo, n int, dst []float32) []float32 {
			if dst == nil {
				dst = f.at32(s, lo, n)
			}
			return fill(dst, float32(x.f(f)))
		}
	case e.Type == tensor.F64:
		s := b.newF64()
		v.f64 = func(f *frame, lo, n int, dst []float64) []float64 {
			if dst == nil {
				dst = f.at64(s, lo, n)
			}
			return fill(dst, x.f(f))
		}
	default:
		s := b.newI64()
		v.i64 = func(f *frame, lo, n int, dst []int64) []int64 {
			if dst == nil {
				dst = f.atI(s, lo, n)
			}
			return fill(dst, x.i(f))
		}
	}
	return v
}

// onceSlice remembers what a shared expression gave in a statement.
func (b *builder) onceSlice(v *vec) *vec {
	m := b.newMemo()
	fresh := func(f *frame, lo, n int) bool {
		p := &f.memo[m]
		if p.stamp == f.stamp && lo >= p.lo && lo+n <= p.lo+p.n {
			return false
		}
		p.stamp, p.lo, p.n = f.stamp, lo, n
		return true
	}
	switch {
	case v.f32 != nil:
		return &vec{f32: func(f *frame, lo, n int, _ []float32) []float32 {
			if fresh(f, lo, n) {
				r := v.f32(f, lo, n, nil)
				f.memo[m].f32 = r
				return r
			}
			p := &f.memo[m]
			return p.f32[lo-p.lo : lo-p.lo+n]
		}}
	case v.f64 != nil:
		return &vec{f64: func(f *frame, lo, n int, _ []float64) []float64 {
			if fresh(f, lo, n) {
				r := v.f64(f, lo, n, nil)
				f.memo[m].f64 = r
				return r
			}
			p := &f.memo[m]
			return p.f64[lo-p.lo : lo-p.lo+n]
		}}
	}
	return &vec{i64: func(f *frame, lo, n int, _ []int64) []int64 {
		if fresh(f, lo, n) {
			r := v.i64(f, lo, n, nil)
			f.memo[m].i64 = r
			return r
		}
		p := &f.memo[m]
		return p.i64[lo-p.lo : lo-p.lo+n]
	}}
}

func (b *builder) sliceOf(e *loop.Expr) *vec {
	switch e.Kind {
	case loop.VarRef:
		s := b.newI64()
		return &vec{i64: func(f *frame, lo, n int, dst []int64) []int64 {
			if dst == nil {
				dst = f.atI(s, lo, n)
			}
			for i := range dst {
				dst[i] = int64(lo + i)
			}
			return dst
		}}
	case loop.RegRef:
		v := b.lane.private[e.Reg]
		if v == nil {
			reject("register %s is read before it is set", e.Reg.Name)
		}
		return v
	case loop.Load:
		return b.sliceLoad(e)
	case loop.Select:
		return b.sliceSelect(e)
	case loop.Cast:
		return b.sliceCast(e)
	case loop.Bits:
		return b.sliceBits(e)
	case loop.Call:
		return b.sliceCall(e)
	}
	reject("an expression of kind %d is not known", e.Kind)
	return nil
}

// laneSet keeps a slice for the statements that follow.
func (b *builder) laneSet(r *loop.Reg, v *vec) lanes {
	old := b.lane.private[r]
	switch {
	case isF32(r.Type):
		s := b.newF32()
		b.lane.private[r] = &vec{f32: func(f *frame, lo, n int, _ []float32) []float32 { return f.at32(s, lo, n) }}
		return b.reset(r, old, func(f *frame, lo, n int) { f.stamp++; into(f.at32(s, lo, n), v.f32, f, lo, n) })
	case r.Type == tensor.F64:
		s := b.newF64()
		b.lane.private[r] = &vec{f64: func(f *frame, lo, n int, _ []float64) []float64 { return f.at64(s, lo, n) }}
		return b.reset(r, old, func(f *frame, lo, n int) { f.stamp++; into(f.at64(s, lo, n), v.f64, f, lo, n) })
	}
	s := b.newI64()
	b.lane.private[r] = &vec{i64: func(f *frame, lo, n int, _ []int64) []int64 { return f.atI(s, lo, n) }}
	return b.reset(r, old, func(f *frame, lo, n int) { f.stamp++; into(f.atI(s, lo, n), v.i64, f, lo, n) })
}

// reset makes a register that is set again keep its place, since a condition
// may leave some lanes as they were.
func (b *builder) reset(r *loop.Reg, old *vec, set lanes) lanes {
	if old == nil {
		return set
	}
	now := b.lane.private[r]
	b.lane.private[r] = old
	switch {
	case now.f32 != nil:
		return func(f *frame, lo, n int) {
			set(f, lo, n)
			copy(old.f32(f, lo, n, nil), now.f32(f, lo, n, nil))
		}
	case now.f64 != nil:
		return func(f *frame, lo, n int) {
			set(f, lo, n)
			copy(old.f64(f, lo, n, nil), now.f64(f, lo, n, nil))
		}
	}
	return func(f *frame, lo, n int) {
		set(f, lo, n)
		copy(old.i64(f, lo, n, nil), now.i64(f, lo, n, nil))
	}
}

// into computes a slice at a place.
func into[T any](dst []T, v func(f *frame, lo, n int, dst []T) []T, f *frame, lo, n int) {
	if r := v(f, lo, n, dst); n > 0 && &r[0] != &dst[0] {
		copy(dst, r)
	}
}

// laneAccum folds a slice into a register.
func (b *builder) laneAccum(a *loop.Accum) lanes {
	v, s := b.slice(a.Val), b.register(a.Reg)
	switch d := a.Reg.Type; {
	case isF32(d):
		g := reduceF32(a.Fn, d)
		return func(f *frame, lo, n int) {
			f.stamp++
			f.fl[s] = float64(g(float32(f.fl[s]), v.f32(f, lo, n, nil)))
		}
	case d == tensor.F64:
		g := binaryFloat(a.Fn, d)
		return func(f *frame, lo, n int) {
			f.stamp++
			for _, x := range v.f64(f, lo, n, nil) {
				f.fl[s] = g(f.fl[s], x)
			}
		}
	default:
		g := binaryInt(a.Fn, d, d)
		return func(f *frame, lo, n int) {
			f.stamp++
			acc := f.in[s]
			for _, x := range v.i64(f, lo, n, nil) {
				acc = g(acc, x)
			}
			f.in[s] = acc
		}
	}
}

// reduceF32 folds a slice. A sum has eight parts, joined in pairs: the lanes of
// a vector loop may be summed in any order, and parts are faster and closer.
func reduceF32(name string, d tensor.DType) func(acc float32, v []float32) float32 {
	switch {
	case name == "add" && d == tensor.F32:
		return sumF32
	case name == "max":
		return func(acc float32, v []float32) float32 {
			for _, x := range v {
				acc = max(acc, x)
			}
			return acc
		}
	case name == "min":
		return func(acc float32, v []float32) float32 {
			for _, x := range v {
				acc = min(acc, x)
			}
			return acc
		}
	}
	g := lookup(name).F2
	return func(acc float32, v []float32) float32 {
		for _, x := range v {
			acc = float32(scalar.Round(d, g(float64(acc), float64(x))))
		}
		return acc
	}
}

func sumF32(acc float32, v []float32) float32 {
	var a0, a1, a2, a3, a4, a5, a6, a7 float32
	for len(v) >= 8 {
		p := (*[8]float32)(v)
		a0 += p[0]
		a1 += p[1]
		a2 += p[2]
		a3 += p[3]
		a4 += p[4]
		a5 += p[5]
		a6 += p[6]
		a7 += p[7]
		v = v[8:]
	}
	for _, x := range v {
		acc += x
	}
	return acc + (((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)))
}
