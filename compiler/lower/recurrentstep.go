package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// input is where the step's inputs of a gate lie: the buffer, the index of a
// sequence's unit, and the distance from a sequence to the next.
func (r *recurrent) input(d int, base, t, n, u *loop.Expr, gate int) (*loop.Buffer, *loop.Expr, int) {
	if r.in != nil {
		return r.in, r.at(n, r.Gates, gate, u), r.Gates * r.hp
	}
	row := r.Dirs * r.Gates * r.Hidden
	at := loop.Mul(loop.Add(loop.Mul(t, r.Batch), loop.Add(base, n)), row)
	return r.x, loop.Add(at, loop.Add(loop.Int((d*r.Gates+gate)*r.Hidden), u)), row
}

// step is one step of one direction.
func (r *recurrent) step(d int, base, t *loop.Expr) (body []loop.Stmt) {
	if r.in != nil {
		from := r.Dirs * r.Gates * r.Hidden
		body = append(body, r.each("n", r.chunk, loop.Serial, func(n *loop.Expr) []loop.Stmt {
			return r.each("g", r.Gates, loop.Serial, func(g *loop.Expr) []loop.Stmt {
				return r.each("u", r.Hidden, loop.Vector, func(u *loop.Expr) []loop.Stmt {
					src := loop.Mul(loop.Add(loop.Mul(t, r.Batch), loop.Add(base, n)), from)
					src = loop.Add(src, loop.Add(loop.Mul(loop.Add(g, loop.Int(d*r.Gates)), r.Hidden), u))
					to := loop.Add(loop.Mul(loop.Add(loop.Mul(n, r.Gates), g), r.hp), u)
					return []loop.Stmt{&loop.Store{Buf: r.in, Index: to, Val: loop.At(r.x, src)}}
				})
			})
		})...)
	}
	first := r.multiply(r.first, r.h, d, base, t)
	switch {
	case r.scaled != nil:
		body = append(body, first...)
		body = append(body, r.each("n", r.chunk, loop.Serial, func(n *loop.Expr) []loop.Stmt {
			return r.units(func(u *loop.Expr) []loop.Stmt {
				reset := r.on(0, r.sum(r.first, n, 1, u))
				v := reset.scaled(loop.At(r.h, r.at(n, 1, 0, u)))
				return []loop.Stmt{&loop.Store{Buf: r.scaled, Index: r.at(n, 1, 0, u), Val: v.value()}}
			})
		})...)
		body = append(body, r.multiply(r.extra, r.scaled, d, base, t)...)
	case r.extra != nil:
		extra := r.multiply(r.extra, r.h, d, base, t)
		if r.back {
			first, extra = extra, first
		}
		body = append(append(body, first...), extra...)
	default:
		body = append(body, first...)
	}
	return append(body, r.each("n", r.chunk, loop.Serial, func(n *loop.Expr) []loop.Stmt {
		return r.within(base, t, n, d, r.advance(d, base, t, n))
	})...)
}

// within runs the update of a sequence unless it has ended.
func (r *recurrent) within(base, t, n *loop.Expr, d int, update []loop.Stmt) []loop.Stmt {
	if r.Lens == nil {
		return update
	}
	length := loop.To(tensor.I64, r.k.access(r.Lens, []*loop.Expr{loop.Add(base, n)}))
	c := &loop.Cond{If: loop.Less(t, length), Then: update}
	if r.y != nil {
		c.Else = []loop.Stmt{&loop.Zero{Buf: r.y, From: r.yAt(d, base, t, n, loop.Int(0)), N: r.Hidden}}
	}
	return []loop.Stmt{c}
}

func (r *recurrent) yAt(d int, base, t, n, u *loop.Expr) *loop.Expr {
	return loop.Flatten([]*loop.Expr{t, loop.Int(d), loop.Add(base, n), u}, []int{r.Steps, r.Dirs, r.Batch, r.Hidden})
}

// units is a loop over the hidden units in whole vectors.
func (r *recurrent) units(body func(u *loop.Expr) []loop.Stmt) []loop.Stmt {
	return r.each("u", r.hp, loop.Vector, body)
}

// multiply is a product with the recurrent weights.
func (r *recurrent) multiply(p *gateProduct, state *loop.Buffer, d int, base, t *loop.Expr) []loop.Stmt {
	if r.lanes == 1 {
		return r.plainProduct(p, state, d, base, t)
	}
	ob, tm, blocks := p.shape.OB, p.shape.TW, p.blocks
	tile := func(ob, tm int, block, n *loop.Expr) loop.Stmt {
		s := &loop.Tile{OB: ob, P: tm, L: r.lanes, X: state, W: p.w, S: p.sums, WO: r.lanes, SO: r.lanes}
		s.Red = []loop.Red{{N: r.Hidden, XStep: 1, WStep: ob * r.lanes}}
		if !p.packed {
			s.WO, s.Red[0].WStep = r.Hidden*r.lanes, r.lanes
		}
		vec := loop.Mul(block, r.lanes)
		s.XAt = loop.Mul(n, r.hp)
		s.WAt = loop.Mul(loop.Add(loop.Int(d*blocks), block), r.Hidden*r.lanes)
		if r.back {
			red := &s.Red[0]
			s.XAt = loop.Add(s.XAt, loop.Int((red.N-1)*red.XStep))
			s.WAt = loop.Add(s.WAt, loop.Int((red.N-1)*red.WStep))
			red.XStep, red.WStep = -red.XStep, -red.WStep
		}
		s.SAt = loop.Add(loop.Mul(n, p.n*r.hp), vec)
		step := 0
		if p.add {
			s.Add, s.AddAt, step = r.input(d, base, t, n, vec, p.from)
			s.AO = r.lanes
		}
		for i := range tm {
			s.XP, s.SP = append(s.XP, i*r.hp), append(s.SP, i*p.n*r.hp)
			if p.add {
				s.AP = append(s.AP, i*step)
			}
		}
		return s
	}
	rows := func(ob int, block *loop.Expr) (body []loop.Stmt) {
		body = r.each("m", r.chunk/tm, loop.Serial, func(m *loop.Expr) []loop.Stmt {
			return []loop.Stmt{tile(ob, tm, block, loop.Mul(m, tm))}
		})
		if rest := r.chunk % tm; rest > 0 {
			body = append(body, tile(ob, rest, block, loop.Int(r.chunk-rest)))
		}
		return body
	}
	full := blocks / ob
	body := r.each("g", full, loop.Serial, func(g *loop.Expr) []loop.Stmt {
		if r.back {
			g = loop.Sub(loop.Int(full-1), g)
		}
		return rows(ob, loop.Mul(g, ob))
	})
	if r.team(p) && full > 1 {
		body[0].(*loop.For).Team = true
	}
	if rest := blocks % ob; rest > 0 {
		last := rows(rest, loop.Int(blocks-rest))
		if r.back {
			return append(last, body...)
		}
		body = append(body, last...)
	}
	return body
}

// team reports products that threads share at every step: where there is
// nothing else to share, and half of the product takes longer than it takes to
// hand it over and to wait for it.
func (r *recurrent) team(p *gateProduct) bool {
	return r.Dirs*(r.Batch/r.chunk) == 1 && p.n*r.Hidden*r.Hidden*max(r.chunk, 2) >= 1<<18
}

// plainProduct is multiply without register tiles: weights as the model has them.
func (r *recurrent) plainProduct(p *gateProduct, state *loop.Buffer, d int, base, t *loop.Expr) []loop.Stmt {
	return r.each("n", r.chunk, loop.Serial, func(n *loop.Expr) []loop.Stmt {
		return r.each("o", p.n*r.Hidden, loop.Serial, func(o *loop.Expr) []loop.Stmt {
			acc := r.k.reg("acc", r.typ)
			row := loop.Add(loop.Int((d*r.Gates+p.from)*r.Hidden), o)
			start := loop.Number(r.typ, 0, 0)
			if p.add {
				b, at, _ := r.input(d, base, t, n, o, p.from)
				start = loop.At(b, at)
			}
			body := []loop.Stmt{&loop.Set{Reg: acc, Val: start, Decl: true}}
			body = append(body, r.each("k", r.Hidden, loop.Vector, func(k *loop.Expr) []loop.Stmt {
				w := loop.At(p.w, loop.Add(loop.Mul(row, r.Hidden), k))
				return []loop.Stmt{&loop.Accum{Reg: acc, Fn: "add", Val: loop.Fn("mul", w, loop.At(state, r.at(n, 1, 0, k)))}}
			})...)
			return append(body, &loop.Store{Buf: p.sums, Index: loop.Add(loop.Mul(n, p.n*r.hp), o), Val: loop.R(acc)})
		})
	})
}

// sum is a gate's sum of a product, at a unit of a sequence.
func (r *recurrent) sum(p *gateProduct, n *loop.Expr, gate int, u *loop.Expr) *loop.Expr {
	return loop.At(p.sums, r.at(n, p.n, gate-p.from, u))
}

// advance computes the new states of a sequence and stores its result.
func (r *recurrent) advance(d int, base, t, n *loop.Expr) []loop.Stmt {
	whole := r.hp == r.Hidden
	body := r.units(func(u *loop.Expr) []loop.Stmt {
		body, h := r.cell(d, base, t, n, u)
		v := r.k.reg("h", r.typ)
		body = append(body, &loop.Set{Reg: v, Val: h, Decl: true}, &loop.Store{Buf: r.h, Index: r.at(n, 1, 0, u), Val: loop.R(v)})
		if r.y != nil && whole {
			body = append(body, &loop.Store{Buf: r.y, Index: r.yAt(d, base, t, n, u), Val: loop.R(v)})
		}
		return body
	})
	if r.y != nil && !whole {
		body = append(body, r.each("u", r.Hidden, loop.Vector, func(u *loop.Expr) []loop.Stmt {
			return []loop.Stmt{&loop.Store{Buf: r.y, Index: r.yAt(d, base, t, n, u), Val: loop.At(r.h, r.at(n, 1, 0, u))}}
		})...)
	}
	return body
}
