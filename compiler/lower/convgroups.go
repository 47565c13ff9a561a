package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Groups whose channels do not fill channel blocks: a tile takes the steps of
// one group only, so that no value meets weights of another group, which an
// infinity would survive. Blocks that several groups share are computed once for
// each, and every lane is taken from its own.

// groupUnit is what of a period's output blocks is computed alike: n blocks of
// one group, or one block of several.
type groupUnit struct {
	first, n int
	groups   []int // within the period
}

// groupPlan cuts a grouped convolution into periods of whole blocks on both
// sides, and those into units. The groups that are left over have units of their
// own.
type groupPlan struct {
	per     int // groups of a period
	in, out int // blocks of a period
	periods int
	units   groupUnits
	rest    groupUnits
}

// groupUnits are units with where the weights of each begin, in vectors, and then
// their number.
type groupUnits struct {
	of []groupUnit
	at []int
}

// size is the number of vectors of weights.
func (u groupUnits) size() int { return u.at[len(u.at)-1] }

// maxGroupUnits bounds the code of such a kernel, maxSharing the groups that
// may share a block.
const (
	maxGroupUnits = 40
	maxSharing    = 8
)

// planGroups gives the units, nil if they would be too many.
func (c *tiledConv) planGroups(lanes int) *groupPlan {
	icg, ocg := c.ic/c.Groups, c.oc/c.Groups
	per := 1 // groups of a period
	for per < c.Groups && (per*icg%lanes > 0 || per*ocg%lanes > 0) {
		per++
	}
	g := &groupPlan{per: per, in: blocksOf(per*icg, lanes), out: blocksOf(per*ocg, lanes), periods: c.Groups / per}
	whole, rest := unitsOf(per, ocg, lanes), unitsOf(c.Groups%per, ocg, lanes)
	if whole == nil || c.Groups%per > 0 && rest == nil || len(whole)+len(rest) > maxGroupUnits {
		return nil
	}
	g.units.of, g.rest.of = whole, rest
	return g
}

// unitsOf cuts groups of ocg outputs, nil if too many share a block.
func unitsOf(groups, ocg, lanes int) (units []groupUnit) {
	for b := range blocksOf(groups*ocg, lanes) {
		first, last := b*lanes/ocg, (min((b+1)*lanes, groups*ocg)-1)/ocg
		if last-first >= maxSharing {
			return nil
		}
		u := groupUnit{first: b, n: 1}
		for k := first; k <= last; k++ {
			u.groups = append(u.groups, k)
		}
		if n := len(units); n > 0 && first == last && len(units[n-1].groups) == 1 && units[n-1].groups[0] == first {
			units[n-1].n++
			continue
		}
		units = append(units, u)
	}
	return units
}

// cost is the vector multiply-adds of a point.
func (g *groupPlan) cost(steps int) int {
	of := func(units []groupUnit) (n int) {
		for _, u := range units {
			n += u.n * len(u.groups) * (steps + 2*(len(u.groups)-1))
		}
		return n
	}
	return of(g.units.of)*g.periods + of(g.rest.of)
}

// widest is the most blocks that one group has to itself.
func (g *groupPlan) widest() int {
	n := 1
	for _, u := range slices.Concat(g.units.of, g.rest.of) {
		n = max(n, u.n)
	}
	return n
}

// cut makes units of at most ob blocks and lays out their weights.
func (g *groupPlan) cut(ob, steps int) {
	g.units, g.rest = g.units.cut(ob, steps), g.rest.cut(ob, steps)
}

func (u groupUnits) cut(ob, steps int) groupUnits {
	out := groupUnits{at: []int{0}}
	for _, u := range u.of {
		for i := 0; i < u.n; i += ob {
			n := min(ob, u.n-i)
			out.of = append(out.of, groupUnit{u.first + i, n, u.groups})
			out.at = append(out.at, out.size()+n*len(u.groups)*steps)
		}
	}
	return out
}

// groupsPay reports whether groups in channel blocks beat pixels in the lanes,
// in vector multiply-adds for each point; see blocksPay.
func (c *tiledConv) groupsPay(lanes int, blocked bool) bool {
	kk, area := c.Kernel[0]*c.Kernel[1], c.Strides[0]*c.Strides[1]
	pixels, blocks := c.oc*c.ic/c.Groups*kk/lanes, c.groups.cost(c.ic/c.Groups*kk)
	if moved := c.ic*area + c.oc; blocked {
		pixels += moved
	} else {
		blocks += moved
	}
	return 3*blocks < 2*pixels // other layers around it are rows of pixels then, too
}

// channelRun is neighbouring channels of a group within blocks: n of each of blocks
// from channel at on.
type channelRun struct{ at, blocks, n int }

// channelRuns are a group's input channels in the order of its weights.
func (c *tiledConv) channelRuns(group, lanes int) []channelRun {
	icg := c.ic / c.Groups
	from, to := group*icg, (group+1)*icg
	var out []channelRun
	if head := from % lanes; head > 0 {
		n := min(lanes-head, icg)
		out = append(out, channelRun{from, 1, n})
		from += n
	}
	if whole := (to - from) / lanes; whole > 0 {
		out = append(out, channelRun{from, whole, lanes})
		from += whole * lanes
	}
	if from < to {
		out = append(out, channelRun{from, 1, to - from})
	}
	return out
}

// groupParts are the sums of a group: nests at offsets in X from the period's
// first block, and in W from the group's weights in the unit.
func (t *convTile) groupParts(group, vec int, kernel func(step int) []loop.Red) []loop.Part {
	kk, plane := t.Kernel[0]*t.Kernel[1], t.x.layout.plane()
	var parts []loop.Part
	w := 0
	for _, r := range t.channelRuns(group, t.lanes) {
		red := append([]loop.Red{{N: r.blocks, XStep: plane, WStep: kk * r.n * vec}}, kernel(r.n*vec)...)
		red = append(red, loop.Red{N: r.n, XStep: 1, WStep: vec})
		parts = append(parts, loop.Part{X: r.at/t.lanes*plane + r.at%t.lanes, W: w, Red: red})
		w += r.blocks * r.n * kk * vec
	}
	return parts
}

// packGroups lays weights out as the units' tiles read them.
func (t *convTile) packGroups(l *lowerer) *program.Buf {
	kk, lanes, g := t.Kernel[0]*t.Kernel[1], t.lanes, t.groups
	icg, ocg := t.ic/t.Groups, t.oc/t.Groups
	all := g.units.size() * lanes
	size := g.periods*all + g.rest.size()*lanes
	return l.weightBuf(t.wName, size, func() []float32 {
		src, out := tensor.As[float32](t.w), make([]float32, size)
		period := func(p int, units groupUnits) {
			for i, u := range units.of {
				at := p*all + units.at[i]*lanes
				for _, group := range u.groups {
					at = t.packGroup(src, out, at, u, p*g.per+group, p*g.per*ocg, icg, kk)
				}
			}
		}
		for p := range g.periods {
			period(p, g.units)
		}
		period(g.periods, g.rest)
		return out
	})
}

// packGroup fills the weights of one group of a unit, and tells where they end.
func (t *convTile) packGroup(src, out []float32, at int, u groupUnit, group, origin, icg, kk int) int {
	ocg := t.oc / t.Groups
	for _, r := range t.channelRuns(group, t.lanes) {
		for b := range r.blocks {
			for k := range kk {
				for i := range r.n {
					ic := r.at + b*t.lanes + i - group*icg
					for v := range u.n * t.lanes {
						if oc := origin + u.first*t.lanes + v; oc/ocg == group && oc < t.oc {
							out[at+v] = src[(oc*icg+ic)*kk+k]
						}
					}
					at += u.n * t.lanes
				}
			}
		}
	}
	return at
}

// emitGroups computes all units of all periods.
func (t *convTile) emitGroups(l *lowerer) {
	g := t.groups
	g.cut(t.shape.OB, t.ic/t.Groups*t.Kernel[0]*t.Kernel[1])
	k := l.kernelFor(t.g.root)
	t.k = k
	t.yb, t.xb = k.param(t.y.buf, true), k.param(t.x.buf, false)
	t.wb = k.param(t.packGroups(l), false)
	if t.p.bias != nil {
		t.bb = k.param(l.biasBuf(t.wName, t.p.bias, t.oc, t.ocb), false)
	}
	direct := t.p.last == t.g.root && l.tileStores(t.y.layout)
	most := 0
	for _, u := range slices.Concat(g.units.of, g.rest.of) {
		if n := u.n * len(u.groups); len(u.groups) > 1 || !direct {
			most = max(most, n)
		}
	}
	if most > 0 {
		t.scratch = k.local("s", tensor.F32, most*t.shape.points()*t.lanes)
	}
	n := t.y.layout.Shape[0]
	inPeriods := g.periods * len(g.units.of)
	total := inPeriods + len(g.rest.of)
	v, image, index, row := t.order(n, total)
	one := func(units groupUnits, i int, period *loop.Expr) []loop.Stmt {
		u := units.of[i]
		t.unit, t.period, t.unitWeights, t.direct = u, period, units.at[i], direct
		return t.rowsOf(u.n, image, loop.Add(loop.Mul(period, g.out), loop.Int(u.first)), row)
	}
	var of func(units groupUnits, i int, unit, period *loop.Expr) []loop.Stmt
	of = func(units groupUnits, i int, unit, period *loop.Expr) []loop.Stmt {
		if i == len(units.of)-1 {
			return one(units, i, period)
		}
		return choice(unit, i+1, len(units.of), func() []loop.Stmt { return one(units, i, period) }, func() []loop.Stmt { return of(units, i+1, unit, period) })
	}
	body := choice(index, inPeriods, total,
		func() []loop.Stmt {
			return of(g.units, 0, loop.Mod(index, len(g.units.of)), loop.Div(index, len(g.units.of)))
		},
		func() []loop.Stmt { return of(g.rest, 0, loop.Sub(index, loop.Int(inPeriods)), loop.Int(g.periods)) })
	work := 2 * int64(n) * int64(t.oc) * int64(t.Out[0]*t.Out[1]) * int64(t.Kernel[0]*t.Kernel[1]) * int64(t.ic/t.Groups)
	l.close(t.site, work)
	k.finish("conv", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// groupTile is a tile of a unit: one for each of its groups.
func (t *convTile) groupTile(ob, tr, tw int, image, block, oh, ow *loop.Expr) []loop.Stmt {
	xl, yl, lanes, g := t.x.layout, t.y.layout, t.lanes, t.groups
	vec := ob * lanes
	kernel := func(step int) []loop.Red {
		return []loop.Red{{N: t.Kernel[0], XStep: t.Dilations[0] * xl.cols() * xl.L, WStep: t.Kernel[1] * step},
			{N: t.Kernel[1], XStep: t.Dilations[1] * xl.L, WStep: step}}
	}
	ih := loop.Add(loop.Mul(oh, t.Strides[0]), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(ow, t.Strides[1]), loop.Int(-t.Lo[1]))
	plane := loop.Add(loop.Mul(image, xl.blocks()), loop.Mul(t.period, g.in))
	x := t.at(xl, plane, ih, iw)
	w := loop.Add(loop.Mul(t.period, g.units.size()*lanes), loop.Int(t.unitWeights*lanes))
	steps := t.Kernel[0] * t.Kernel[1] * t.ic / t.Groups
	direct := t.direct && len(t.unit.groups) == 1
	var body []loop.Stmt
	for i, group := range t.unit.groups {
		parts := t.groupParts(group, vec, kernel)
		q := &loop.Tile{OB: ob, P: tr * tw, L: lanes, X: t.xb, W: t.wb, B: t.bb, WO: lanes, Act: t.p.act, Lo: t.p.lo, Hi: t.p.hi,
			XP: t.points(xl, tr, tw, t.Strides[0], t.Strides[1]), Red: parts[0].Red, WAt: loop.Add(w, loop.Int(i*steps*vec))}
		q.XAt = loop.Add(x, loop.Int(parts[0].X))
		for _, p := range parts[1:] {
			q.More = append(q.More, loop.Part{X: p.X - parts[0].X, W: p.W, Red: p.Red})
		}
		if t.bb != nil {
			q.BAt = loop.Mul(block, lanes)
		}
		if t.addPlace != nil {
			al := t.addPlace.layout
			q.Add, q.AO, q.AP = t.k.param(t.addPlace.buf, false), al.plane(), t.points(al, tr, tw, 1, 1)
			q.AddAt = t.at(al, loop.Add(loop.Mul(image, al.blocks()), block), oh, ow)
		}
		if direct {
			yplane := loop.Add(loop.Mul(image, yl.blocks()), block)
			q.S, q.SAt, q.SO, q.SP = t.yb, t.at(yl, yplane, oh, ow), yl.plane(), t.points(yl, tr, tw, 1, 1)
			return []loop.Stmt{q}
		}
		q.S, q.SAt, q.SO = t.scratch, loop.Int(i*tr*tw*vec), tr*tw*lanes
		for p := range tr * tw {
			q.SP = append(q.SP, p*lanes)
		}
		body = append(body, q)
	}
	return append(body, t.epilogue(ob, tr, tw, image, block, oh, ow))
}

// ownGroup takes a lane of a unit's block from the sums of the group that it is
// of; at is where the first group's lie.
func (t *convTile) ownGroup(at, lane *loop.Expr, points int) *loop.Expr {
	held := func(i int) *loop.Expr {
		return loop.At(t.scratch, loop.Add(at, loop.Int(i*points*t.unit.n*t.lanes)))
	}
	ocg := t.oc / t.Groups
	e := held(len(t.unit.groups) - 1)
	for i := len(t.unit.groups) - 2; i >= 0; i-- {
		end := (t.unit.groups[i]+1)*ocg - t.unit.first*t.lanes // of this group, in the block
		e = loop.If(loop.Less(lane, loop.Int(end)), held(i), e)
	}
	return e
}
