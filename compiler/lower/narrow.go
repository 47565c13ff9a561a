package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Contractions of F32 values may run on narrower operands: exactly, where the
// values are whole numbers that fit in bytes. Such operands lie in memory in
// the narrow type, so that tiles read them as they are.

// operands are the narrow form of a contraction; the zero value is that of F32.
type operands struct {
	kind  loop.TileKind
	shift int // an element of the left operand is this much less than its value
	// center is how much less elements of the right operand are: the sums of
	// the left operand's elements make up for it.
	center int
	right  bool // a reader means the right operand
}

// rightOnly are those of the right operand.
func (n operands) rightOnly() operands { n.right = true; return n }

// in is a layout with the elements that the operand has in memory.
func (n operands) in(lay Layout) Layout {
	if n.kind == loop.TileF32 {
		return lay
	}
	x, w := n.kind.Operands()
	if lay.As, lay.Shift = x, n.shift; n.right {
		lay.As, lay.Shift = w, n.center
	}
	return lay
}

// multipliesBytes reports whether the target sums products of bytes at its width.
func (o Options) multipliesBytes() bool {
	feature := map[int]string{16: "avx512-vnni", 8: "avx-vnni"}[o.Lanes]
	return feature != "" && slices.Contains(o.Features, feature)
}

func (l *lowerer) has(feature string) bool { return slices.Contains(l.o.Features, feature) }

// bytes gives the form on bytes of a contraction, if its operands are whole
// numbers in the ranges of U8 and I8 and the target multiplies such. steps is how
// many products a sum has: those of I32 are exact, as those of F32 are below 2^24.
func (l *lowerer) bytes(x, w *ir.Value, steps int) (operands, bool) {
	if !l.o.multipliesBytes() || w.DType() != tensor.F32 || steps > math.MaxInt32/255/128 {
		return operands{}, false
	}
	lo, hi, ok := l.wholeRange(x, 24)
	lo, hi = min(lo, 0), max(hi, 0) // halos hold zeros
	if !ok || hi-lo > 255 {
		return operands{}, false
	}
	least, most, ok := l.rightRange(w)
	center := 0
	if least < -128 || most > 127 {
		center = least + 128
	}
	return operands{kind: loop.TileU8S8, shift: lo, center: center}, ok && most-least <= 255
}

// rightRange bounds a right operand of whole numbers, zero among them.
func (l *lowerer) rightRange(v *ir.Value) (least, most int, ok bool) {
	w := constant(v)
	if w == nil {
		least, most, ok = l.wholeRange(v, 24)
		return min(least, 0), max(most, 0), ok
	}
	for _, f := range tensor.As[float32](w) {
		if f != float32(int16(f)) {
			return 0, 0, false
		}
		least, most = min(least, int(f)), max(most, int(f))
	}
	return least, most, true
}

// pixelSums gives, for each pixel of a value in blocks of bytes without halo,
// the sum of its elements over the channels, as F32.
func (l *lowerer) pixelSums(v *ir.Value, x *place) *buf {
	key := v.Name + " sums"
	if c := l.moved[key]; c != nil {
		return c.buf
	}
	lay := x.layout
	images, pixels, lanes := lay.Shape[0], lay.Shape[2]*lay.Shape[3], lay.L
	c := &place{l.newBuf(v.Name+"·sums", tensor.F32, images*pixels), plain([]int{images, pixels})}
	l.moved[key] = c
	k := l.kernelFor(v)
	out, in := k.param(c.buf, true), k.param(x.buf, false)
	group := loop.TileU8S8.Group()
	wide := lanes * group / lay.L // pixels of a vector
	if pixels < wide {
		k.fewPixels(out, in, lay, pixels)
		return c.buf
	}
	ones := k.param(constBuf(l, "ones", tensor.I8, lanes*group, func() []int8 {
		return slices.Repeat([]int8{1}, lanes*group)
	}), false)
	points := min(pixels/wide, 8)
	step := points * wide
	chunks := (pixels + step - 1) / step
	scratch := k.local("s", tensor.F32, points*lanes)
	t := k.fresh("t", images*chunks)
	first := loop.Clamp(loop.Mul(loop.Mod(loop.V(t), chunks), step), 0, pixels-step) // the last chunk ends with the plane
	image := loop.Div(loop.V(t), chunks)
	tile := &loop.Tile{Kind: loop.TileU8S8, OB: 1, P: points, L: lanes, Lanes: true, X: in, W: ones, S: scratch, WAt: loop.Int(0), SAt: loop.Int(0),
		WO: lanes * group, SO: points * lanes, Red: []loop.Red{{N: lay.blocks(), XStep: lay.plane()}},
		XAt: loop.Add(loop.Mul(image, lay.blocks()*lay.plane()), loop.Mul(first, lay.L))}
	for p := range points {
		tile.XP, tile.SP = append(tile.XP, p*lanes*group), append(tile.SP, p*lanes)
	}
	p := k.fresh("p", step)
	parts := lanes / wide // lanes of a pixel
	sum := loop.At(scratch, loop.Mul(loop.V(p), parts))
	for i := 1; i < parts; i++ {
		sum = loop.Fn("add", sum, loop.At(scratch, loop.Add(loop.Mul(loop.V(p), parts), loop.Int(i))))
	}
	store := &loop.Store{Buf: out, Index: loop.Add(loop.Mul(image, pixels), loop.Add(first, loop.V(p))), Val: sum}
	body := append([]loop.Stmt{tile}, loop.Nest([]*loop.Var{p}, []loop.LoopKind{loop.Vector}, store)...)
	k.finish("sums", []loop.Stmt{&loop.For{Var: t, Body: body}}, int64(in.Len))
	return c.buf
}

// fewPixels is pixelSums for planes of less than a vector.
func (k *kb) fewPixels(out, in *loop.Buffer, lay Layout, pixels int) {
	o := k.fresh("o", out.Len)
	acc := k.reg("acc", tensor.I32)
	b, c := k.fresh("b", lay.blocks()), k.fresh("c", lay.L)
	plane := loop.Add(loop.Mul(loop.Div(loop.V(o), pixels), lay.blocks()), loop.V(b))
	at := loop.Add(loop.Mul(plane, lay.plane()), loop.Add(loop.Mul(loop.Mod(loop.V(o), pixels), lay.L), loop.V(c)))
	body := []loop.Stmt{&loop.Set{Reg: acc, Val: loop.Number(tensor.I32, 0, 0), Decl: true}}
	body = append(body, loop.Nest([]*loop.Var{b, c}, []loop.LoopKind{loop.Serial, loop.Vector},
		&loop.Accum{Reg: acc, Fn: "add", Val: loop.To(tensor.I32, loop.At(in, at))})...)
	body = append(body, &loop.Store{Buf: out, Index: loop.V(o), Val: loop.To(tensor.F32, loop.R(acc))})
	k.finish("sums", loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, body...), int64(in.Len))
}

// rowSums is the sum of each row of bytes, as F32.
func (l *lowerer) rowSums(v *ir.Value, x *buf, rows, n int) *buf {
	key := v.Name + " row sums"
	if c := l.moved[key]; c != nil {
		return c.buf
	}
	c := &place{l.newBuf(v.Name+"·sums", tensor.F32, rows), plain([]int{rows})}
	l.moved[key] = c
	k := l.kernelFor(v)
	out, in := k.param(c.buf, true), k.param(x, false)
	r, j := k.fresh("r", rows), k.fresh("j", n)
	acc := k.reg("acc", tensor.I32)
	body := []loop.Stmt{&loop.Set{Reg: acc, Val: loop.Number(tensor.I32, 0, 0), Decl: true}}
	body = append(body, loop.Nest([]*loop.Var{j}, []loop.LoopKind{loop.Vector},
		&loop.Accum{Reg: acc, Fn: "add", Val: loop.To(tensor.I32, loop.At(in, loop.Add(loop.Mul(loop.V(r), n), loop.V(j))))})...)
	body = append(body, &loop.Store{Buf: out, Index: loop.V(r), Val: loop.To(tensor.F32, loop.R(acc))})
	k.finish("sums", loop.Nest([]*loop.Var{r}, []loop.LoopKind{loop.Serial}, body...), int64(in.Len))
	return c.buf
}

// tileSums reports whether tiles store sums of a type.
func tileSums(d tensor.DType) bool { return d == tensor.F32 || d == tensor.I32 }

// centered adds what the center of the right operand leaves out of a sum.
func (n operands) centered(held, sum *loop.Expr) *loop.Expr {
	return loop.Fn("add", held, loop.Fn("mul", loop.To(held.Type, sum), loop.Number(held.Type, float64(n.center), int64(n.center))))
}

// formHalf is a product whose weights lie in memory as float16.
const formHalf = "f16"

// halves reports whether products may and should be of bfloat16 values. CPUs
// with tiles of them have their vector instruction at half the rate of F32.
func (l *lowerer) halves(m precision.Mode) bool {
	return m.Allows(precision.BF16) && l.o.Lanes == 16 && l.has("avx512-bf16") && !l.has("amx-bf16")
}

// bfloat16 rounds to the nearest bfloat16.
func bfloat16(f float32) uint16 { return tensor.BF16FromFloat64(float64(f)) }

// float16 rounds to the nearest float16.
func float16(f float32) uint16 { return tensor.F16FromFloat64(float64(f)) }

// fitsHalf reports that no weight is beyond what float16 holds.
func fitsHalf(w *tensor.Tensor) bool {
	return !slices.ContainsFunc(tensor.As[float32](w), func(f float32) bool { return !(f >= -65504 && f <= 65504) })
}

// wholeRange bounds a value whose elements are whole numbers and cannot be NaN.
func (l *lowerer) wholeRange(v *ir.Value, depth int) (lo, hi int, ok bool) {
	d := v.DType()
	switch {
	case v.Const != nil:
		return wholeConst(v.Const)
	case d == tensor.Bool:
		return 0, 1, true
	case d.IsInteger() && d.Bits() <= 8:
		a, b := d.IntRange()
		return int(a), int(b), true
	case v.Def == nil || depth == 0:
		return 0, 0, false
	case l.clamped[v]:
		return clampRange(v)
	}
	in := v.Def.Inputs
	switch v.Def.Op {
	case "cast", "reshape", "transpose", "broadcast", "slice", "gather", "window_max":
		return l.wholeRange(in[0], depth-1)
	case "pad", "concat":
		for i, x := range in {
			a, b, whole := l.wholeRange(x, depth-1)
			if !whole {
				return 0, 0, false
			}
			if i == 0 {
				lo, hi = a, b
			}
			lo, hi = min(lo, a), max(hi, b)
		}
		return lo, hi, len(in) > 0
	case "add", "sub", "max", "min":
		a, b, whole := l.wholeRange(in[0], depth-1)
		c, e, also := l.wholeRange(in[1], depth-1)
		if !whole || !also || max(-a, b, -c, e) > 1<<20 {
			return 0, 0, false
		}
		switch v.Def.Op {
		case "add":
			return a + c, b + e, true
		case "sub":
			return a - e, b - c, true
		case "max":
			return max(a, c), max(b, e), true
		}
		return min(a, c), min(b, e), true
	}
	return 0, 0, false
}

// wholeConst bounds a constant of whole numbers.
func wholeConst(t *tensor.Tensor) (lo, hi int, ok bool) {
	if t.Len() == 0 || t.Len() > 4096 || !t.DType.IsNumeric() {
		return 0, 0, false
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, f := range t.Floats() {
		if f != math.Trunc(f) || math.Abs(f) > 1<<20 {
			return 0, 0, false
		}
		low, high = min(low, f), max(high, f)
	}
	return int(low), int(high), true
}

// clampRange is the range of a float that alreadyInteger found: the bounds are
// its outermost ops.
func clampRange(v *ir.Value) (lo, hi int, ok bool) {
	low, high := math.Inf(-1), math.Inf(1)
	for n := v.Def; n != nil && (n.Op == "max" || n.Op == "min"); n = n.Inputs[0].Def {
		c, uniform := scalarConst(n.Inputs[1])
		switch {
		case !uniform:
			return 0, 0, false
		case n.Op == "max":
			low = max(low, c)
		default:
			high = min(high, c)
		}
	}
	if low > high || math.Max(-low, high) > 1<<20 {
		return 0, 0, false
	}
	return int(low), int(high), true
}

// narrowed decides whether a value that a group stores lies in memory in a
// narrow type: if a narrow contraction reads it so, and no reader needs F32 in
// memory. Values that elementwise ops compute then also take the blocks that a
// convolution reads.
func (l *lowerer) narrowed(g *group, v *ir.Value, lay *Layout) {
	if v.DType() != tensor.F32 {
		return
	}
	var form operands
	blocks, others := false, false
	for _, n := range l.uses[v] {
		f, raw := l.readsRaw(n, v)
		switch {
		case !raw:
			others = true
			continue
		case f.kind == loop.TileF32:
			return
		}
		form, blocks = f, blocks || n.Op == "conv" && l.tiled(n).icl == l.o.Lanes
	}
	switch {
	case form.kind == loop.TileF32:
		return
	case form.kind == loop.TileBF16 && others && l.o.PrecisionAt != nil:
		return // other layers are promised more
	case g.anchor != nil && g.anchor.Op != "conv" && g.anchor.Op != "dot" && core.Lookup(g.anchor.Op).Class != core.Window:
		return
	}
	if blocks && lay.L == 1 {
		if g.anchor != nil || len(g.rows) > 0 || v.Def.Op == "concat" {
			return
		}
		if lay.L = l.o.Lanes; !l.movesBytes(v, form) { // computed in rows, then moved
			lay.L, lay.Lo, lay.Hi = 1, [2]int{}, [2]int{}
		}
	}
	if !blocks && !lay.isPlain() {
		return
	}
	*lay = form.in(*lay)
}

// movesBytes reports a value whose elements in memory are those of bytes in memory
// that it is made of.
func (l *lowerer) movesBytes(v *ir.Value, form operands) bool {
	shift := float64(form.shift)
	for v.Def != nil && l.places[v] == nil {
		switch n := v.Def; {
		case n.Op == "add" || n.Op == "sub":
			c, ok := scalarConst(n.Inputs[1])
			if !ok {
				return false
			}
			if n.Op == "add" {
				c = -c
			}
			shift += c
			v = n.Inputs[0]
		case n.Op == "cast" || core.Lookup(n.Op).Class == core.Movement && n.Op != "concat":
			v = n.Inputs[0]
		default:
			return false
		}
	}
	return v.DType() == tensor.U8 && shift == 0
}

// readsRaw reports whether a node reads a value as it lies in memory, and in
// which form; other readers convert what they load.
func (l *lowerer) readsRaw(n *ir.Node, v *ir.Value) (operands, bool) {
	switch n.Op {
	case "conv":
		c := l.tiled(n)
		if c == nil {
			return operands{}, false
		}
		return c.operands, true
	case "dot":
		d := l.dot(n)
		if d == nil {
			return operands{}, false
		}
		if g := l.member[n.Outputs[0]]; g != nil && g.attention != nil {
			return operands{}, false
		}
		if v == d.y && v != d.x && d.kind == loop.TileU8S8 {
			return d.rightOnly(), true
		}
		if v != d.x {
			return operands{}, false
		}
		return d.operands, true
	}
	return operands{}, core.Lookup(n.Op).Class == core.Ordered
}

// tileStores reports whether tiles themselves read and write elements of a
// layout.
func (l *lowerer) tileStores(lay Layout) bool {
	return lay.As == tensor.Invalid || lay.As == tensor.BF16 && l.has("avx512-bf16")
}

// begins are the first values of a convolution's sums: what the shift of the
// left operand adds to each, and whole constants.
func (t *convTile) begins(l *lowerer, bias []int64) *buf {
	w, oc, shift := t.w, t.oc, t.shift
	return constBuf(l, t.wName+"·begin", tensor.I32, t.ocb*t.lanes, func() []int32 {
		src, out := tensor.As[float32](w), make([]int32, t.ocb*t.lanes)
		per := len(src) / oc
		for i, b := range bias {
			out[i] = int32(b)
		}
		for i, f := range src {
			out[i/per] += int32(shift) * int32(f)
		}
		return out
	})
}

// wholePeel walks from the sum of a product of bytes towards the root as long as
// whole constants are added to it: the tile begins with them. sums is the type
// that it then stores, bias what each channel along the axis begins with.
func (l *lowerer) wholePeel(g *group, axis, channels int) (p peeled, sums tensor.DType, bias []int64) {
	p.last = g.anchor.Outputs[0]
	bias = make([]int64, channels)
	for p.last != g.root && len(l.uses[p.last]) == 1 {
		n := l.uses[p.last][0]
		if l.member[n.Outputs[0]] != g || !added(n, p.last, axis, bias) {
			break
		}
		p.last = n.Outputs[0]
	}
	return p, p.last.DType(), bias
}

// added puts what a node adds to a whole number to the bias; a conversion
// between F32 and I32 adds nothing.
func added(n *ir.Node, v *ir.Value, axis int, bias []int64) bool {
	d := n.Outputs[0].DType()
	if d != tensor.F32 && d != tensor.I32 {
		return false
	}
	sign, other := int64(1), n.Inputs[len(n.Inputs)-1]
	switch {
	case n.Op == "cast":
		return true
	case n.Op == "add":
		if other == v {
			other = n.Inputs[0]
		}
	case n.Op == "sub" && other != v:
		sign = -1
	default:
		return false
	}
	c := perChannel(other, axis)
	if c == nil || c.Len() != 1 && c.Len() != len(bias) {
		return false
	}
	for i := range c.Len() {
		if f := c.Float(i); f != math.Trunc(f) || math.Abs(f) > 1<<30 {
			return false
		}
	}
	for i := range bias {
		bias[i] += sign * int64(c.Float(i%c.Len()))
	}
	return true
}
