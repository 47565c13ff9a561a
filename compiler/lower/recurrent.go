package lower

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// recurrent makes one kernel of a whole sequence: a loop over the steps with
// the states in local arrays and the recurrent weights packed for register
// tiles. A unit's gates lie HP apart, whole vectors, so that tiles and gate
// math have no remainders; what fills a vector up stays zero.
type recurrent struct {
	core.Recurrence
	l     *lowerer
	k     *kb
	n     *ir.Node
	typ   tensor.DType
	lanes int
	hp    int // hidden units in whole vectors
	chunk int // sequences of the batch that one iteration of the outer loop runs
	par   bool
	site  *site

	x            *loop.Buffer // the inputs' products
	y            *loop.Buffer // nil: nobody reads it
	last         []*loop.Buffer
	h, c         *loop.Buffer // states, [chunk][hp]
	in           *loop.Buffer // the step's inputs in whole vectors; nil: x has them
	peep, bias   *loop.Buffer
	scaled       *loop.Buffer // gru: r∘h
	first, extra *gateProduct
	back         bool // the step that is being made reads the weights backwards
}

// gateProduct is the product of a state with the recurrent weights of gates
// [from, from+n).
type gateProduct struct {
	from, n int
	w, sums *loop.Buffer // sums [chunk][n][hp]
	shape   tileShape
	blocks  int  // vectors of a direction
	packed  bool // tiles' vectors lie together, as constants are packed
	add     bool // the inputs are added
}

// readOnce reports operands of a recurrent node that its kernel reads once, or
// packs: they need no memory of their own.
func readOnce(n *ir.Node, v *ir.Value) bool {
	return n.Op == "recurrent" && n.Inputs[0] != v && (n.Inputs[1] != v || constantOnly(v))
}

func (l *lowerer) emitRecurrent(g *group) error {
	rec, err := core.RecurrenceOf(g.anchor)
	if err != nil {
		return err
	}
	if rec.Dirs*rec.Batch*rec.Hidden == 0 {
		return nil
	}
	r := &recurrent{Recurrence: rec, l: l, n: g.anchor, typ: rec.X.DType(), lanes: 1, k: l.kernelFor(g.root)}
	if r.typ == tensor.F32 && l.o.Lanes >= 4 {
		r.lanes = l.o.Lanes
	}
	r.hp = (r.Hidden + r.lanes - 1) / r.lanes * r.lanes
	work := 2 * int64(r.Steps) * int64(r.Dirs*r.Batch) * int64(r.Gates*r.Hidden) * int64(r.Hidden)
	r.site = l.siteOf(g.anchor, fmt.Sprintf("recurrent %s t%d n%d d%d h%d", r.Cell, r.Steps, r.Batch, r.Dirs, r.Hidden))
	r.site.form(formDirect, formDirect)
	l.site = r.site
	r.par = work >= 8*parallelWork
	r.chunk = l.number(r.site, func(c *schedule.Choice) *int { return &c.Rows }, r.share(), r.shares()...)
	r.site.fit = func(c *schedule.Choice) {
		if c.TW > c.Rows { // a register tile is within the sequences that run together
			c.OB, c.TR, c.TW = 0, 0, 0
		}
	}
	if err := r.operands(); err != nil {
		return err
	}
	v := r.k.fresh("q", r.Dirs*(r.Batch/r.chunk))
	chunks := r.Batch / r.chunk
	base := loop.Mul(loop.Mod(loop.V(v), chunks), r.chunk)
	body := r.sequence(0, base)
	for d := 1; d < r.Dirs; d++ {
		body = []loop.Stmt{&loop.Cond{If: loop.Less(loop.V(v), loop.Int(d*chunks)), Then: body, Else: r.sequence(d, base)}}
	}
	if v.N > 1 {
		body = []loop.Stmt{&loop.For{Var: v, Par: r.par, Body: body}}
	}
	l.close(r.site, work)
	r.k.finish("recurrent", body, work)
	return nil
}

// shares are the numbers of sequences that may run together.
func (r *recurrent) shares() (out []int) {
	for n := 1; n <= r.Batch; n++ {
		if r.Batch%n == 0 {
			out = append(out, n)
		}
	}
	return out
}

// share is how many sequences run together: enough that a weight that is read
// is used several times, few enough that threads have something to share.
func (r *recurrent) share() int {
	if !r.par {
		return r.Batch
	}
	want := 8
	if r.Gates*r.Hidden*r.Hidden <= 1<<17 { // half a megabyte stays in the second cache
		want = 4
	}
	for n := want; n > want/2; n-- {
		if r.Batch%n == 0 {
			return n
		}
	}
	return r.Batch
}

// operands makes parameters and local arrays.
func (r *recurrent) operands() error {
	l, k := r.l, r.k
	xb, err := l.rowMajor(r.X, []int{0, 1, 2}, operands{})
	if err != nil {
		return err
	}
	for i, v := range r.n.Outputs {
		var b *loop.Buffer
		if l.isOut[v] || len(l.uses[v]) > 0 {
			b = k.param(l.places[v].buf, true)
		}
		if i == 0 {
			r.y = b
		} else {
			r.last = append(r.last, b)
		}
	}
	r.x = k.param(xb, false)
	r.h = k.local("h", r.typ, r.chunk*r.hp)
	if r.Cell == "lstm" {
		r.c = k.local("c", r.typ, r.chunk*r.hp)
	}
	if r.hp != r.Hidden {
		r.in = k.local("x", r.typ, r.chunk*r.Gates*r.hp)
	}
	if r.Peep != nil {
		r.peep = k.local("p", r.typ, 3*r.hp)
	}
	if r.Bias != nil {
		r.bias = k.local("b", r.typ, r.hp)
	}
	whole := r.Gates
	if r.Cell == "gru" {
		whole = 2
		if r.extra, err = r.product(2, 1, false); err != nil {
			return err
		}
		r.extra.add = !r.After
		if !r.After {
			r.scaled = k.local("r", r.typ, r.chunk*r.hp)
		}
	}
	r.first, err = r.product(0, whole, true)
	return err
}

func (r *recurrent) product(from, n int, add bool) (*gateProduct, error) {
	p := &gateProduct{from: from, n: n, add: add, blocks: n * r.hp / r.lanes}
	p.sums = r.k.local("s", r.typ, r.chunk*n*r.hp)
	if r.lanes == 1 {
		w, err := r.l.rowMajor(r.R, []int{0, 1, 2}, operands{})
		if err != nil {
			return nil, err
		}
		p.w = r.k.param(w, false)
		return p, nil
	}
	if from == 0 {
		p.shape = r.l.tile(r.site, p.blocks, 1, r.chunk, r.Hidden, false)
	} else {
		p.shape = r.l.tiles(p.blocks, 1, r.chunk, r.Hidden, false)[0]
	}
	b, err := r.pack(p)
	if err != nil {
		return nil, err
	}
	p.w = r.k.param(b, false)
	return p, nil
}

// pack lays the weights out as [direction][tile][K][OB][lanes], or with the
// vectors of a tile apart if they are computed at run time.
func (r *recurrent) pack(p *gateProduct) (*buf, error) {
	blocks, lanes := p.blocks, r.lanes
	size := r.Dirs * blocks * r.Hidden * lanes
	if t := constant(r.R); t != nil {
		p.packed = true
		ob := p.shape.OB
		return r.l.weightBuf(r.R.Name, size, func() []float32 {
			out := make([]float32, size)
			src := tensor.As[float32](t)
			for d := range r.Dirs {
				for v := range blocks {
					first := v / ob * ob
					in := min(ob, blocks-first)
					base := (d*blocks+first)*r.Hidden*lanes + (v-first)*lanes
					for ln := range lanes {
						gate, u := v*lanes/r.hp, v*lanes%r.hp+ln
						if u >= r.Hidden {
							continue
						}
						row := src[((d*r.Gates+p.from+gate)*r.Hidden+u)*r.Hidden:][:r.Hidden]
						for k, w := range row {
							out[base+k*in*lanes+ln] = w
						}
					}
				}
			}
			return out
		}), nil
	}
	shape := []int{r.Dirs, p.n, r.hp / lanes, r.Hidden, lanes}
	c := &place{r.l.newBuf(r.R.Name+"·packed", tensor.F32, size), plain(shape)}
	err := r.l.pointwiseTo(r.R, c, "pack", func(k *kb, i []*loop.Expr) *loop.Expr {
		u := loop.Add(loop.Mul(i[2], lanes), i[4])
		row := loop.Add(loop.Mul(loop.Add(i[1], loop.Int(p.from)), r.Hidden), u)
		return loop.If(loop.Less(u, loop.Int(r.Hidden)), k.access(r.R, []*loop.Expr{i[0], row, i[3]}), loop.Number(tensor.F32, 0, 0))
	})
	return c.buf, err
}

// turns reports whether every second step reads the weights backwards. What was
// read last is still in the cache then; read in the same order again, weights
// that are larger than a cache find nothing of themselves there. Those that
// come from the third cache come faster forwards.
func (r *recurrent) turns() bool {
	size := 4 * r.Gates * r.Hidden * r.hp
	return r.lanes > 1 && r.Steps > 1 && size > 16<<10 && size <= 2<<20
}

// each makes a loop of n iterations.
func (r *recurrent) each(name string, n int, kind loop.LoopKind, body func(i *loop.Expr) []loop.Stmt) []loop.Stmt {
	v := r.k.fresh(name, n)
	return loop.Nest([]*loop.Var{v}, []loop.LoopKind{kind}, body(loop.V(v))...)
}

// at is an element of rows of whole vectors.
func (r *recurrent) at(row *loop.Expr, perRow, gate int, u *loop.Expr) *loop.Expr {
	return loop.Add(loop.Add(loop.Mul(row, perRow*r.hp), loop.Int(gate*r.hp)), u)
}

// sequence is the body for one direction and the sequences from base on.
func (r *recurrent) sequence(d int, base *loop.Expr) []loop.Stmt {
	body := r.begin(d, base)
	step := func(s *loop.Expr) []loop.Stmt {
		t := s
		if r.Reverse[d] {
			t = loop.Sub(loop.Int(r.Steps-1), s)
		}
		return r.step(d, base, t)
	}
	if r.turns() {
		body = append(body, r.each("t", r.Steps/2, loop.Serial, func(s *loop.Expr) []loop.Stmt {
			both := step(loop.Mul(s, 2))
			r.back = true
			both = append(both, step(loop.Add(loop.Mul(s, 2), loop.Int(1)))...)
			r.back = false
			return both
		})...)
		if r.Steps%2 == 1 {
			body = append(body, step(loop.Int(r.Steps-1))...)
		}
	} else {
		body = append(body, r.each("t", r.Steps, loop.Serial, step)...)
	}
	for i, out := range r.last {
		if out == nil {
			continue
		}
		state := []*loop.Buffer{r.h, r.c}[i]
		body = append(body, r.each("n", r.chunk, loop.Serial, func(n *loop.Expr) []loop.Stmt {
			return r.each("u", r.Hidden, loop.Vector, func(u *loop.Expr) []loop.Stmt {
				to := loop.Flatten([]*loop.Expr{loop.Int(d), loop.Add(base, n), u}, []int{r.Dirs, r.Batch, r.Hidden})
				return []loop.Stmt{&loop.Store{Buf: out, Index: to, Val: loop.At(state, r.at(n, 1, 0, u))}}
			})
		})...)
	}
	return body
}

// begin fills the local arrays with what does not change, and the states with
// what they begin with.
func (r *recurrent) begin(d int, base *loop.Expr) (body []loop.Stmt) {
	fill := func(b *loop.Buffer, v *ir.Value, rows, cols int, idx func(row, u *loop.Expr) []*loop.Expr) {
		if b == nil {
			return
		}
		if r.hp != cols {
			body = append(body, &loop.Zero{Buf: b, From: loop.Int(0), N: b.Len})
		}
		if v == nil {
			return
		}
		body = append(body, r.each("n", rows, loop.Serial, func(n *loop.Expr) []loop.Stmt {
			return r.each("u", cols, loop.Vector, func(u *loop.Expr) []loop.Stmt {
				return []loop.Stmt{&loop.Store{Buf: b, Index: r.at(n, 1, 0, u), Val: r.k.access(v, idx(n, u))}}
			})
		})...)
	}
	for i, v := range r.Initial {
		fill([]*loop.Buffer{r.h, r.c}[i], v, r.chunk, r.Hidden, func(n, u *loop.Expr) []*loop.Expr {
			return []*loop.Expr{loop.Int(d), loop.Add(base, n), u}
		})
	}
	fill(r.in, nil, 0, r.Hidden, nil)
	fill(r.peep, r.Peep, 3, r.Hidden, func(n, u *loop.Expr) []*loop.Expr {
		return []*loop.Expr{loop.Int(d), loop.Add(loop.Mul(n, r.Hidden), u)}
	})
	fill(r.bias, r.Bias, 1, r.Hidden, func(_, u *loop.Expr) []*loop.Expr { return []*loop.Expr{loop.Int(d), u} })
	return body
}
