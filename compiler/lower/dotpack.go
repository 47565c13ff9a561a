package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// packConst lays a constant right operand out as [batch][tile][K][OB][lanes].
func (d *tiledDot) packConst(l *lowerer, blocks int) *buf {
	n := d.b * blocks * d.k * d.lanes
	switch d.kind {
	case loop.TileU8S8:
		return constBuf(l, d.y.Name, tensor.I8, n, func() []int8 {
			return packDot(d, blocks, func(f float32) int8 { return int8(f - float32(d.center)) })
		})
	case loop.TileBF16:
		return constBuf(l, d.y.Name, tensor.BF16, n, func() []uint16 { return packDot(d, blocks, bfloat16) })
	}
	if d.halved {
		return constBuf(l, d.y.Name, tensor.F16, n, func() []uint16 { return packDot(d, blocks, float16) })
	}
	return l.weightBuf(d.y.Name, n, func() []float32 { return packDot(d, blocks, func(f float32) float32 { return f }) })
}

// packDot fills the tiles' weights; groups of a narrow product's elements lie
// side by side.
func packDot[T any](d *tiledDot, blocks int, of func(float32) T) []T {
	ob, lanes, g := d.shape.OB, d.lanes, d.kind.Group()
	out := make([]T, d.b*blocks*d.k*lanes)
	src := tensor.As[float32](d.w)
	bo, ko, no := d.weightOffsets()
	for b := range d.b {
		for n := range d.n {
			block := n / lanes
			first := block / ob * ob
			in := min(ob, blocks-first)
			base := (b*blocks+first)*d.k*lanes + ((block-first)*lanes+n%lanes)*g
			for k := range d.k {
				out[base+k/g*in*lanes*g+k%g] = of(src[bo[b]+ko[k]+no[n]])
			}
		}
	}
	return out
}

// weightOffsets are the offsets of batches, steps and columns in the weights.
func (d *tiledDot) weightOffsets() (batch, k, n []int) {
	of := func(axes []int) []int {
		var sizes, steps []int
		for _, a := range axes {
			sizes = append(sizes, d.w.Shape[a])
			steps = append(steps, tensor.Numel(d.w.Shape[a+1:]))
		}
		return offsets(sizes, steps)
	}
	return of(d.RB), of(d.RC), of(d.RF)
}

// begins are the first values of the sums: what the shift of the left operand
// adds to each, and whole constants. w are the weights as packed.
func (d *tiledDot) begins(l *lowerer, w *buf, blocks int, bias []int64) *buf {
	if d.w == nil {
		return d.columnSums(l, w, blocks)
	}
	return constBuf(l, d.y.Name+"·begin", tensor.I32, d.b*blocks*d.lanes, func() []int32 {
		src, out := tensor.As[float32](d.w), make([]int32, d.b*blocks*d.lanes)
		bo, ko, no := d.weightOffsets()
		for b := range d.b {
			for n := range d.n {
				if bias != nil {
					out[b*blocks*d.lanes+n] = int32(bias[n])
				}
				for _, k := range ko {
					out[b*blocks*d.lanes+n] += int32(d.shift) * int32(src[bo[b]+k+no[n]])
				}
			}
		}
		return out
	})
}

// offsets lists the offset of every combination of indices.
func offsets(sizes, steps []int) []int {
	out := []int{0}
	for i := range sizes {
		var next []int
		for _, o := range out {
			for j := range sizes[i] {
				next = append(next, o+j*steps[i])
			}
		}
		out = next
	}
	return out
}

// packAtRun does the same for an operand that is computed, with the blocks of
// a tile apart: [batch][block][K][lanes], groups of K side by side.
func (d *tiledDot) packAtRun(l *lowerer, blocks int) (*buf, error) {
	g := d.kind.Group()
	shape := []int{d.b, blocks, d.k / g, d.lanes, g}
	c := l.newPlace(d.y.Name+"·packed", tensor.F32, d.rightOnly().in(plain(shape)))
	ys := d.y.Static()
	pick := func(axes []int) []int {
		var s []int
		for _, a := range axes {
			s = append(s, ys[a])
		}
		return s
	}
	err := l.pointwiseTo(d.y, c, "pack", func(k *kb, idx []*loop.Expr) *loop.Expr {
		n := loop.Add(loop.Mul(idx[1], d.lanes), idx[3])
		at := make([]*loop.Expr, len(ys))
		put := func(axes []int, e *loop.Expr) {
			for i, x := range loop.Unflatten(e, pick(axes)) {
				at[axes[i]] = x
			}
		}
		put(d.RB, idx[0])
		put(d.RC, loop.Add(loop.Mul(idx[2], g), idx[4]))
		put(d.RF, n)
		return loop.If(loop.Less(n, loop.Int(d.n)), k.access(d.y, at), loop.Number(tensor.F32, 0, 0))
	})
	return c.buf, err
}

// columnSums are the sums of the columns of a right operand of bytes, as packed,
// times the shift of the left operand: what it adds to sums.
func (d *tiledDot) columnSums(l *lowerer, w *buf, blocks int) *buf {
	c := l.newBuf(d.y.Name+"·begin", tensor.I32, d.b*blocks*d.lanes)
	k := l.kernelFor(d.y)
	grp := d.kind.Group()
	out, in := k.param(c, true), k.param(w, false)
	ones := k.param(constBuf(l, "ones", tensor.U8, grp, func() []uint8 { return slices.Repeat([]uint8{1}, grp) }), false)
	scratch := k.local("s", tensor.I32, d.lanes)
	t, v := k.fresh("t", d.b*blocks), k.fresh("l", d.lanes)
	tile := &loop.Tile{Kind: d.kind, OB: 1, P: 1, L: d.lanes, X: ones, W: in, S: scratch, XAt: loop.Int(0), WAt: loop.Mul(loop.V(t), d.k*d.lanes), SAt: loop.Int(0),
		WO: d.lanes * grp, SO: d.lanes, XP: []int{0}, SP: []int{0}, Red: []loop.Red{{N: d.k / grp, WStep: d.lanes * grp}}}
	number := func(n int) *loop.Expr { return loop.Number(tensor.I32, 0, int64(n)) }
	sum := loop.Fn("add", loop.Fn("mul", loop.At(scratch, loop.V(v)), number(d.shift)), number(d.shift*d.center*d.k))
	store := &loop.Store{Buf: out, Index: loop.Add(loop.Mul(loop.V(t), d.lanes), loop.V(v)), Val: sum}
	body := append([]loop.Stmt{tile}, loop.Nest([]*loop.Var{v}, []loop.LoopKind{loop.Vector}, store)...)
	k.finish("sums", []loop.Stmt{&loop.For{Var: t, Body: body}}, int64(in.Len))
	return c
}
