package interp

import (
	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tile is loop.Tile, word for word. Sums are of F32, each product rounded
// before it is added: targets with a fused multiply-add differ by less.
func (x *exec) tile(t *loop.Tile) {
	if err := t.Check(); err != nil {
		fail("%v", err)
	}
	at := func(b *loop.Buffer, e *loop.Expr) int64 {
		if b == nil {
			return 0
		}
		return x.eval(e).I
	}
	xa, wa, ba, sa, aa := at(t.X, t.XAt), at(t.W, t.WAt), at(t.B, t.BAt), at(t.S, t.SAt), at(t.Add, t.AddAt)
	g := int64(t.Kind.Group())
	parts := t.Parts()
	for o := range t.OB {
		for p := range t.P {
			for l := range t.Stored(o) {
				xi := xa + int64(t.XP[p])
				switch {
				case t.Across:
					xi += int64(l)
				case t.Lanes:
					xi += int64(l) * g
				}
				wi := wa + int64(o*t.WO) + int64(l)*g
				var acc float32
				if t.Kind == loop.TileU8S8 {
					var sum int32
					if t.B != nil {
						sum = int32(x.load(t.B, ba+int64(o*t.L+l)).I)
					}
					for _, q := range parts {
						sum = x.whole(t, q.Red, sum, wi+int64(q.W), xi+int64(q.X))
					}
					if t.S.Type == tensor.I32 {
						x.store(t.S, sa+int64(o*t.SO+t.SP[p]+l), value{I: int64(sum)})
						continue
					}
					acc = float32(sum)
				} else {
					if t.B != nil {
						acc = x.f32(t.B, ba+int64(o*t.L+l))
					}
					for _, q := range parts {
						acc = x.sum(t, q.Red, acc, wi+int64(q.W), xi+int64(q.X))
					}
				}
				if t.Add != nil {
					acc += x.f32(t.Add, aa+int64(o*t.AO+t.AP[p]+l))
				}
				x.store(t.S, sa+int64(o*t.SO+t.SP[p]+l), value{F: activate(t, acc)})
			}
		}
	}
}

func (x *exec) f32(b *loop.Buffer, i int64) float32 { return float32(x.load(b, i).F) }

// sum runs the reduction loops, outermost first.
func (x *exec) sum(t *loop.Tile, red []loop.Red, acc float32, w, xi int64) float32 {
	if len(red) == 0 {
		for _, d := range t.Products() {
			for g := range int64(t.Kind.Group()) {
				acc += float32(x.f32(t.W, w+int64(d[1])+g) * x.f32(t.X, xi+int64(d[0])+g))
			}
		}
		return acc
	}
	r := red[0]
	for i := range int64(r.N) {
		acc = x.sum(t, red[1:], acc, w+i*int64(r.WStep), xi+i*int64(r.XStep))
	}
	return acc
}

// whole is sum for products of integers.
func (x *exec) whole(t *loop.Tile, red []loop.Red, acc int32, w, xi int64) int32 {
	if len(red) == 0 {
		apart := int64(1)
		if t.Across {
			apart = int64(t.L)
		}
		for _, d := range t.Products() {
			for g := range int64(t.Kind.Group()) {
				acc += int32(x.load(t.W, w+int64(d[1])+g).I) * int32(x.load(t.X, xi+int64(d[0])+g*apart).I)
			}
		}
		return acc
	}
	r := red[0]
	for i := range int64(r.N) {
		acc = x.whole(t, red[1:], acc, w+i*int64(r.WStep), xi+i*int64(r.XStep))
	}
	return acc
}

func activate(t *loop.Tile, v float32) float64 {
	f := float64(v)
	switch t.Act {
	case "":
		return f
	case "relu":
		return scalar.Max(f, 0)
	case "clip":
		return scalar.Min(scalar.Max(f, float64(t.Lo)), float64(t.Hi))
	}
	fail("activation %q of a tile is not known", t.Act)
	return 0
}
