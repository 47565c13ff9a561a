package portable

import (
	"math"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// choice decides between two computations lane by lane. One of the fields is
// set: the condition is the same for all lanes, holds exactly for lanes of an
// interval, or must be looked at lane by lane.
type choice struct {
	same  func(f *frame) int64
	from  func(f *frame, lo, hi int) (int, int)
	lanes func(f *frame, lo, n int, dst []int64) []int64
}

func (b *builder) choice(e *loop.Expr) choice {
	if !b.varies(e) {
		return choice{same: b.value(e).i}
	}
	if r := b.interval(e); r != nil {
		return choice{from: r}
	}
	return choice{lanes: b.slice(e).i64}
}

// split runs yes on the lanes for which the condition holds, no on the others,
// each on runs as long as can be.
func (c choice) split(f *frame, lo, n int, yes, no func(f *frame, lo, n int)) {
	part := func(g func(f *frame, lo, n int), a, b int) {
		if b > a {
			g(f, a, b-a)
		}
	}
	switch {
	case c.same != nil:
		if c.same(f) != 0 {
			yes(f, lo, n)
		} else {
			no(f, lo, n)
		}
	case c.from != nil:
		a, z := c.from(f, lo, lo+n)
		part(no, lo, a)
		part(yes, a, z)
		part(no, z, lo+n)
	default:
		m := c.lanes(f, lo, n, nil)
		for i := 0; i < n; {
			j := i + 1
			for j < n && (m[j] != 0) == (m[i] != 0) {
				j++
			}
			if m[i] != 0 {
				yes(f, lo+i, j-i)
			} else {
				no(f, lo+i, j-i)
			}
			i = j
		}
	}
}

// interval gives the lanes [a, z) within [lo, hi) for which a condition holds,
// if it is a conjunction of comparisons of indices; else nil.
func (b *builder) interval(e *loop.Expr) func(f *frame, lo, hi int) (a, z int) {
	if !b.varies(e) {
		c := b.value(e).i
		return func(f *frame, lo, hi int) (int, int) {
			if c(f) != 0 {
				return lo, hi
			}
			return lo, lo
		}
	}
	if e.Kind != loop.Call || len(e.Args) != 2 {
		return nil
	}
	if e.Fn == "and" && e.Type == tensor.Bool {
		p, q := b.interval(e.Args[0]), b.interval(e.Args[1])
		if p == nil || q == nil {
			return nil
		}
		return func(f *frame, lo, hi int) (int, int) {
			if lo, hi = p(f, lo, hi); lo >= hi {
				return lo, lo
			}
			return q(f, lo, hi)
		}
	}
	if e.Fn != "lt" && e.Fn != "le" || e.Args[0].Type != tensor.I64 {
		return nil
	}
	// k·lane + rest < 0
	terms, c := linear(loop.Sub(e.Args[0], e.Args[1]))
	k, rest, ok := b.ofLane(terms)
	if !ok || k == 0 {
		return nil
	}
	if e.Fn == "le" {
		c--
	}
	r := b.sum(rest, c)
	return func(f *frame, lo, hi int) (int, int) {
		v := int64(r(f))
		if k > 0 {
			hi = min(hi, int(scalar.FloorDiv(-v-1, int64(k)))+1)
		} else {
			lo = min(hi, max(lo, int(scalar.FloorDiv(v, int64(-k)))+1)) // the condition may hold for no lane here
		}
		return lo, max(lo, hi)
	}
}

// ofLane gives the multiple of the lane in an index and what else it is made
// of; not ok if it depends on the lane in another way.
func (b *builder) ofLane(terms []term) (k int, rest []term, ok bool) {
	for _, t := range terms {
		switch {
		case t.atom.Kind == loop.VarRef && t.atom.Var == b.lane.v:
			k += t.k
		case b.varies(t.atom):
			return 0, nil, false
		default:
			rest = append(rest, t)
		}
	}
	return k, rest, true
}

// harmless reports expressions that may be computed for lanes that do not need
// them: all they read lies within its buffer.
func (b *builder) harmless(e *loop.Expr) bool {
	k := e.Key()
	if v, ok := b.safe[k]; ok {
		return v
	}
	v := true
	if e.Kind == loop.Load {
		lo, hi := loop.Range(e.Args[0])
		v = lo >= 0 && hi < int64(e.Buf.Len)
	}
	for _, a := range e.Args {
		v = v && b.harmless(a)
	}
	b.safe[k] = v
	return v
}

// blendable: computing both sides for all lanes is allowed and not dear.
func (b *builder) blendable(e *loop.Expr) bool {
	return b.harmless(e.Args[1]) && b.harmless(e.Args[2]) && e.Args[1].Cost()+e.Args[2].Cost() <= 40
}

// allSame gives 1 or 0 if all lanes agree, else -1.
func allSame(m []int64) int {
	first := m[0] != 0
	for _, x := range m[1:] {
		if (x != 0) != first {
			return -1
		}
	}
	return int(truth(first))
}

func (b *builder) sliceSelect(e *loop.Expr) *vec {
	c := b.choice(e.Args[0])
	x, y := b.slice(e.Args[1]), b.slice(e.Args[2])
	blend := c.lanes != nil && b.blendable(e)
	switch {
	case isF32(e.Type):
		s := b.newF32()
		g := selectT(c, blend, x.f32, y.f32)
		return &vec{f32: func(f *frame, lo, n int, dst []float32) []float32 {
			if dst == nil {
				dst = f.at32(s, lo, n)
			}
			g(f, lo, n, dst)
			return dst
		}}
	case e.Type == tensor.F64:
		s := b.newF64()
		g := selectT(c, blend, x.f64, y.f64)
		return &vec{f64: func(f *frame, lo, n int, dst []float64) []float64 {
			if dst == nil {
				dst = f.at64(s, lo, n)
			}
			g(f, lo, n, dst)
			return dst
		}}
	}
	s := b.newI64()
	g := selectT(c, blend, x.i64, y.i64)
	return &vec{i64: func(f *frame, lo, n int, dst []int64) []int64 {
		if dst == nil {
			dst = f.atI(s, lo, n)
		}
		g(f, lo, n, dst)
		return dst
	}}
}

func selectT[T any](c choice, blend bool, x, y func(f *frame, lo, n int, dst []T) []T) func(f *frame, lo, n int, dst []T) {
	return func(f *frame, lo, n int, dst []T) {
		if blend {
			m := c.lanes(f, lo, n, nil)
			switch allSame(m) {
			case 1:
				into(dst, x, f, lo, n)
			case 0:
				into(dst, y, f, lo, n)
			default:
				// The first side may be in place: it is read no more than the second
				// is, lane by lane.
				p := x(f, lo, n, nil)
				q := y(f, lo, n, nil)
				for i := range dst {
					if m[i] != 0 {
						dst[i] = p[i]
					} else {
						dst[i] = q[i]
					}
				}
			}
			return
		}
		from := lo
		c.split(f, lo, n,
			func(f *frame, lo, n int) { into(dst[lo-from:lo-from+n], x, f, lo, n) },
			func(f *frame, lo, n int) { into(dst[lo-from:lo-from+n], y, f, lo, n) })
	}
}

func (b *builder) sliceBits(e *loop.Expr) *vec {
	from := e.Args[0].Type
	g := rebits(from, e.Type)
	x := b.slice(e.Args[0])
	get := func(f *frame, lo, n int) []int64 { return x.i64(f, lo, n, nil) }
	tmp := b.newI64()
	switch {
	case isF32(from):
		get = func(f *frame, lo, n int) []int64 {
			t := f.atI(tmp, lo, n)
			for i, v := range x.f32(f, lo, n, nil) {
				t[i] = int64(math.Float64bits(float64(v)))
			}
			return t
		}
	case from == tensor.F64:
		get = func(f *frame, lo, n int) []int64 {
			t := f.atI(tmp, lo, n)
			for i, v := range x.f64(f, lo, n, nil) {
				t[i] = int64(math.Float64bits(v))
			}
			return t
		}
	}
	switch {
	case isF32(e.Type):
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range get(f, lo, n) {
				dst[i] = float32(math.Float64frombits(uint64(g(v))))
			}
		})
	case e.Type == tensor.F64:
		return b.mapF64(func(f *frame, lo, n int, dst []float64) {
			for i, v := range get(f, lo, n) {
				dst[i] = math.Float64frombits(uint64(g(v)))
			}
		})
	}
	return b.mapI64(func(f *frame, lo, n int, dst []int64) {
		for i, v := range get(f, lo, n) {
			dst[i] = g(v)
		}
	})
}
