package portable

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tileCode is a register tile made ready. The lanes are taken by fours and the
// points by twos: eight sums are what the registers of every machine hold.
type tileCode struct {
	*loop.Tile
	x, w, b, s, a      int // buffers; b and a are -1 if there are none
	xa, wa, ba, sa, aa func(f *frame) int
	parts              []loop.Part // joined where the steps allow
}

func (b *builder) tile(t *loop.Tile) stmt {
	c := &tileCode{Tile: t, b: -1, a: -1}
	for _, p := range t.Parts() {
		c.parts = append(c.parts, loop.Part{X: p.X, W: p.W, Red: joined(p.Red)})
	}
	var roots []*loop.Expr
	for _, e := range []*loop.Expr{t.XAt, t.WAt, t.BAt, t.SAt, t.AddAt} {
		if e != nil {
			roots = append(roots, e)
		}
	}
	b.begin(roots...)
	none := func(*frame) int { return 0 }
	bind := func(q *loop.Buffer, e *loop.Expr) (int, func(f *frame) int) {
		if q == nil {
			return -1, none
		}
		if e == nil {
			reject("a tile without an index into %s", q.Name)
		}
		return b.buffer(q), b.index(e)
	}
	c.x, c.xa = bind(t.X, t.XAt)
	c.w, c.wa = bind(t.W, t.WAt)
	c.b, c.ba = bind(t.B, t.BAt)
	c.s, c.sa = bind(t.S, t.SAt)
	c.a, c.aa = bind(t.Add, t.AddAt)
	if err := t.Check(); err != nil {
		reject("%v", err)
	}
	if t.Kind != loop.TileF32 || t.W.Type != tensor.F32 || t.S.Type != tensor.F32 || t.Add != nil && t.Add.Type != tensor.F32 {
		reject("a tile of narrow operands")
	}
	if t.Act != "" && t.Act != "relu" && t.Act != "clip" {
		reject("activation %q of a tile is not known", t.Act)
	}
	return c.run
}

// joined drops loops of one step and joins neighbours that move on evenly.
func joined(red []loop.Red) []loop.Red {
	var out []loop.Red
	for _, r := range slices.Backward(red) { // innermost first
		if r.N == 1 {
			continue
		}
		if n := len(out); n > 0 {
			in := &out[n-1]
			if r.XStep == in.N*in.XStep && r.WStep == in.N*in.WStep {
				in.N *= r.N
				continue
			}
		}
		out = append(out, r)
	}
	slices.Reverse(out)
	return out
}

func (c *tileCode) run(f *frame) {
	f.stamp++
	x, w := f.bufs[c.x].f32, f.bufs[c.w].f32
	xa, wa, ba, sa, aa := c.xa(f), c.wa(f), c.ba(f), c.sa(f), c.aa(f)
	var acc [8]float32
	for o := range c.OB {
		for l := 0; l < c.Stored(o); l += 4 {
			width := min(4, c.L-l)
			kept := min(width, c.Stored(o)-l)
			for p := 0; p < c.P; p += 2 {
				points := min(2, c.P-p)
				c.start(f, &acc, ba+o*c.L+l, width)
				x0 := xa + c.XP[p]
				x1 := xa + c.XP[min(p+1, c.P-1)]
				if c.Lanes {
					x0, x1 = x0+l, x1+l
				}
				c.sum(w, x, wa+o*c.WO+l, x0, x1, width, &acc)
				for q := range points {
					at := sa + o*c.SO + c.SP[p+q] + l
					add := -1
					if c.a >= 0 {
						add = aa + o*c.AO + c.AP[p+q] + l
					}
					c.finish(f, acc[4*q:4*q+kept], at, add)
				}
			}
		}
	}
}

// start sets the sums to the bias or to zero.
func (c *tileCode) start(f *frame, acc *[8]float32, at, width int) {
	*acc = [8]float32{}
	if c.b >= 0 {
		copy(acc[:4], f.bufs[c.b].f32[at:at+width])
		copy(acc[4:], acc[:4])
	}
}

func (c *tileCode) sum(w, x []float32, wi, x0, x1, width int, acc *[8]float32) {
	for _, p := range c.parts {
		wi, x0, x1 := wi+p.W, x0+p.X, x1+p.X
		switch {
		case len(c.Terms) > 0 || width < 4:
			c.narrow(p.Red, w, x, wi, x0, x1, width, acc)
		case c.Lanes:
			nest(p.Red, w, x, wi, x0, x1, acc, lanes42)
		default:
			nest(p.Red, w, x, wi, x0, x1, acc, tile42)
		}
	}
}

// inner is the two innermost reduction loops over eight sums.
type inner func(w, x []float32, wi, x0, x1 int, out, in loop.Red, acc *[8]float32)

func nest(red []loop.Red, w, x []float32, wi, x0, x1 int, acc *[8]float32, g inner) {
	one := loop.Red{N: 1}
	switch len(red) {
	case 0:
		g(w, x, wi, x0, x1, one, one, acc)
	case 1:
		g(w, x, wi, x0, x1, one, red[0], acc)
	case 2:
		g(w, x, wi, x0, x1, red[0], red[1], acc)
	default:
		for range red[0].N {
			nest(red[1:], w, x, wi, x0, x1, acc, g)
			wi += red[0].WStep
			x0 += red[0].XStep
			x1 += red[0].XStep
		}
	}
}

// tile42 sums four lanes for two points.
func tile42(w, x []float32, wi, x0, x1 int, out, in loop.Red, acc *[8]float32) {
	a0, a1, a2, a3 := acc[0], acc[1], acc[2], acc[3]
	b0, b1, b2, b3 := acc[4], acc[5], acc[6], acc[7]
	for range out.N {
		wj, xj := wi, 0
		for range in.N {
			v := (*[4]float32)(w[wj:])
			p, q := x[x0+xj], x[x1+xj]
			a0 += float32(v[0] * p)
			a1 += float32(v[1] * p)
			a2 += float32(v[2] * p)
			a3 += float32(v[3] * p)
			b0 += float32(v[0] * q)
			b1 += float32(v[1] * q)
			b2 += float32(v[2] * q)
			b3 += float32(v[3] * q)
			wj += in.WStep
			xj += in.XStep
		}
		wi += out.WStep
		x0 += out.XStep
		x1 += out.XStep
	}
	acc[0], acc[1], acc[2], acc[3] = a0, a1, a2, a3
	acc[4], acc[5], acc[6], acc[7] = b0, b1, b2, b3
}

// lanes42 is tile42 with a vector as the second operand.
func lanes42(w, x []float32, wi, x0, x1 int, out, in loop.Red, acc *[8]float32) {
	a0, a1, a2, a3 := acc[0], acc[1], acc[2], acc[3]
	b0, b1, b2, b3 := acc[4], acc[5], acc[6], acc[7]
	for range out.N {
		wj, xj := wi, 0
		for range in.N {
			v := (*[4]float32)(w[wj:])
			p, q := (*[4]float32)(x[x0+xj:]), (*[4]float32)(x[x1+xj:])
			a0 += float32(v[0] * p[0])
			a1 += float32(v[1] * p[1])
			a2 += float32(v[2] * p[2])
			a3 += float32(v[3] * p[3])
			b0 += float32(v[0] * q[0])
			b1 += float32(v[1] * q[1])
			b2 += float32(v[2] * q[2])
			b3 += float32(v[3] * q[3])
			wj += in.WStep
			xj += in.XStep
		}
		wi += out.WStep
		x0 += out.XStep
		x1 += out.XStep
	}
	acc[0], acc[1], acc[2], acc[3] = a0, a1, a2, a3
	acc[4], acc[5], acc[6], acc[7] = b0, b1, b2, b3
}

// once are the offsets of a step that has one term.
var once = [][2]int{{0, 0}}

// narrow sums any number of lanes up to four, all terms of a step before the
// next one.
func (c *tileCode) narrow(red []loop.Red, w, x []float32, wi, x0, x1, width int, acc *[8]float32) {
	if len(red) > 0 {
		for range red[0].N {
			c.narrow(red[1:], w, x, wi, x0, x1, width, acc)
			wi += red[0].WStep
			x0 += red[0].XStep
			x1 += red[0].XStep
		}
		return
	}
	step := 0
	if c.Lanes {
		step = 1
	}
	terms := c.Terms
	if len(terms) == 0 {
		terms = once
	}
	for _, d := range terms {
		wi, x0, x1 := wi+d[1], x0+d[0], x1+d[0]
		for l := range width {
			acc[l] += float32(w[wi+l] * x[x0+l*step])
			acc[4+l] += float32(w[wi+l] * x[x1+l*step])
		}
	}
}

// finish adds, bounds and stores the sums of some lanes of one point.
func (c *tileCode) finish(f *frame, acc []float32, at, add int) {
	if add >= 0 {
		for i, v := range f.bufs[c.a].f32[add : add+len(acc)] {
			acc[i] += v
		}
	}
	switch c.Act {
	case "relu":
		for i := range acc {
			acc[i] = max(acc[i], 0)
		}
	case "clip":
		for i := range acc {
			acc[i] = min(max(acc[i], c.Lo), c.Hi)
		}
	}
	copy(f.bufs[c.s].f32[at:at+len(acc)], acc)
}
