package lower

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// rescaledBytes rewrites the division of a sum of dequantized values by the next
// scale, before it is rounded, as integer kernels compute it: (a·s + b·t)/u =
// a·(s/u) + b·(t/u), past clips. It gives nil for what is none. Which way ties go
// was up to the processor before, too, since a product and a sum may be one
// instruction. Products are left alone: they are what the evaluator says.
func (r *rebuild) rescaledBytes(v *ir.Value, by float64) *ir.Value {
	n := v.Def
	if n == nil || v.DType() != tensor.F32 || len(n.Inputs) != 2 {
		return nil
	}
	switch n.Op {
	case "max", "min":
		c, ok := scalarConst(n.Inputs[1])
		if !ok {
			return nil
		}
		if y := r.rescaledBytes(n.Inputs[0], by); y != nil {
			return r.b.Binary(n.Op, y, r.b.Scalar(tensor.F32, c/by))
		}
	case "add", "sub":
		a, za := r.rescaledTerm(n.Inputs[0], by)
		b, zb := r.rescaledTerm(n.Inputs[1], by)
		if a == nil || b == nil {
			return nil
		}
		if n.Op == "sub" {
			zb = -zb
		}
		if z := za + zb; z != 0 {
			a = r.b.Add(a, r.b.Scalar(tensor.F32, z))
		}
		return r.b.Binary(n.Op, a, b)
	}
	return nil
}

// rescaledTerm is a dequantized value over a number, less what its zero point
// makes of that, and what is less.
func (r *rebuild) rescaledTerm(v *ir.Value, by float64) (x *ir.Value, rest float64) {
	x, s := r.scaledWhole(v)
	if x == nil || !moderate(s/by) {
		return nil, 0
	}
	k := float64(float32(s / by))
	if b, z := offZero(x); b != nil {
		x, rest = b, -z*k
	}
	return r.b.Mul(r.b.BroadcastTo(x, v.Static()...), r.b.Scalar(tensor.F32, k)), rest
}

func moderate(f float64) bool { return math.Abs(f) > 1e-30 && math.Abs(f) < 1e30 }

// scaledWhole splits a value, maybe repeated along axes, into whole numbers and
// a scale; nil if it is not dequantized.
func (r *rebuild) scaledWhole(v *ir.Value) (*ir.Value, float64) {
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	x, s := r.wholeTimes(v, -1)
	if x == nil || x.Const != nil {
		return nil, 0
	}
	return x, s.Float(0)
}

// offZero takes a zero point from bytes in memory; nil: there is none. Floats that
// stand for bytes keep theirs, since products read them without it.
func offZero(x *ir.Value) (bytes *ir.Value, zero float64) {
	n := x.Def
	if n == nil || n.Op != "sub" || !widenedBytes(n.Inputs[0]) {
		return nil, 0
	}
	z, ok := scalarConst(n.Inputs[1])
	if !ok {
		return nil, 0
	}
	return n.Inputs[0], z
}
