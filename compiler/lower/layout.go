package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Layout is how a value lies in memory. L = 1 is row-major; L > 1 is
// N, C/L, H, W, L for rank 4, so that a vector holds L channels of one pixel.
// The halo is zero-filled rows and columns around each plane, which lets
// convolutions read past the edge. As is the type that elements of F32 have in
// memory where that is a narrower one; a value is Shift more than its element.
type Layout struct {
	Shape  []int
	L      int
	Lo, Hi [2]int
	As     tensor.DType
	Shift  int
	// Parts are the numbers of channels that begin a block together; nil: all.
	Parts []int
}

func plain(shape []int) Layout { return Layout{Shape: shape, L: 1} }

func (l Layout) isPlain() bool { return l.L == 1 && l.isBare() }

// isBare reports a layout without halo.
func (l Layout) isBare() bool { return l.Lo == [2]int{} && l.Hi == [2]int{} }

// blocks is the number of channel blocks.
func (l Layout) blocks() int {
	n := 0
	for _, c := range l.parts() {
		n += blocksOf(c, l.L)
	}
	return n
}

// parts are the numbers of channels that begin a block together.
func (l Layout) parts() []int {
	if l.Parts == nil {
		return l.Shape[1:2]
	}
	return l.Parts
}

// slot is where a channel is, counted in lanes of blocks.
func (l Layout) slot(c int) int {
	at := 0
	for _, n := range l.parts() {
		if c < n {
			break
		}
		c -= n
		at += blocksOf(n, l.L) * l.L
	}
	return at + c
}

// slotAt is slot of an index.
func (l Layout) slotAt(c *loop.Expr) *loop.Expr {
	end := l.Shape[1]
	var e *loop.Expr
	for i := len(l.Parts) - 1; i >= 0; i-- {
		first := end - l.Parts[i]
		here := loop.Add(c, loop.Int(l.slot(first)-first))
		if e == nil {
			e = here
		} else {
			e = loop.If(loop.Less(c, loop.Int(end)), here, e)
		}
		end = first
	}
	if e == nil {
		return c
	}
	return e
}

// rows and cols are the plane's sizes with the halo.
func (l Layout) rows() int { return l.Shape[2] + l.Lo[0] + l.Hi[0] }
func (l Layout) cols() int { return l.Shape[3] + l.Lo[1] + l.Hi[1] }

// plane is the number of elements of one channel block.
func (l Layout) plane() int { return l.rows() * l.cols() * l.L }

// Len is the number of elements that the value takes.
func (l Layout) Len() int {
	if l.isPlain() {
		return tensor.Numel(l.Shape)
	}
	return l.Shape[0] * l.blocks() * l.plane()
}

// offset is where the element at an index lies.
func (l Layout) offset(idx []*loop.Expr) *loop.Expr {
	if l.isPlain() {
		return loop.Flatten(idx, l.Shape)
	}
	n, c, h, w := idx[0], l.slotAt(idx[1]), idx[2], idx[3]
	e := loop.Add(loop.Mul(n, l.blocks()), loop.Div(c, l.L))
	e = loop.Add(loop.Mul(e, l.rows()), loop.Add(h, loop.Int(l.Lo[0])))
	e = loop.Add(loop.Mul(e, l.cols()), loop.Add(w, loop.Int(l.Lo[1])))
	return loop.Add(loop.Mul(e, l.L), loop.Mod(c, l.L))
}

// stored is what an element of a value is in memory.
func (l Layout) stored(val *loop.Expr) *loop.Expr {
	if l.As == tensor.Invalid {
		return val
	}
	if l.As.IsInteger() {
		val = less(val, float64(l.Shift))
	}
	return loop.To(l.As, val)
}

// less is a whole number e − k. The constants of bounds and sums that lie
// outermost take k up: exactly, since bounded sums of whole numbers are exact.
func less(e *loop.Expr, k float64) *loop.Expr {
	number := func(f float64) *loop.Expr { return loop.Number(e.Type, f, 0) }
	if e.Kind == loop.Call && len(e.Args) == 2 && e.Args[1].Kind == loop.Const {
		switch x, c := e.Args[0], e.Args[1].F; e.Fn {
		case "max", "min":
			return loop.Fn(e.Fn, less(x, k), number(c-k))
		case "add":
			return less(x, k-c)
		case "sub":
			return less(x, k+c)
		}
	}
	if k == 0 {
		return e
	}
	return loop.Fn("sub", e, number(k))
}

// loaded is the value of type d that an element in memory stands for.
func (l Layout) loaded(d tensor.DType, e *loop.Expr) *loop.Expr {
	if l.As == tensor.Invalid {
		return e
	}
	e = loop.To(d, e)
	if l.Shift != 0 {
		e = loop.Fn("add", e, loop.Number(d, float64(l.Shift), 0))
	}
	return e
}

// zeroHalo clears the halo of plane p (an index over N·blocks).
func (l Layout) zeroHalo(b *loop.Buffer, p *loop.Expr, fresh func(string, int) *loop.Var) []loop.Stmt {
	if l.Lo == [2]int{} && l.Hi == [2]int{} {
		return nil
	}
	base := loop.Mul(p, l.plane())
	at := func(row, col int) *loop.Expr {
		return loop.Add(base, loop.Int((row*l.cols()+col)*l.L))
	}
	var out []loop.Stmt
	zero := func(e *loop.Expr, n int) {
		if n > 0 {
			out = append(out, &loop.Zero{Buf: b, From: e, N: n, Fill: byte(-l.Shift)})
		}
	}
	// The top with the first row's left edge, the bottom with the last row's
	// right edge; between rows the right edge and the next left edge are one run.
	zero(at(0, 0), (l.Lo[0]*l.cols()+l.Lo[1])*l.L)
	if side := l.Hi[1] + l.Lo[1]; side > 0 && l.Shape[2] > 1 {
		v := fresh("hr", l.Shape[2]-1)
		e := loop.Add(at(l.Lo[0], l.Lo[1]+l.Shape[3]), loop.Mul(loop.V(v), l.cols()*l.L))
		out = append(out, loop.Nest([]*loop.Var{v}, []loop.LoopKind{loop.Serial}, &loop.Zero{Buf: b, From: e, N: side * l.L, Fill: byte(-l.Shift)})...)
	}
	zero(at(l.Lo[0]+l.Shape[2]-1, l.Lo[1]+l.Shape[3]), (l.Hi[1]+l.Hi[0]*l.cols())*l.L)
	return out
}
