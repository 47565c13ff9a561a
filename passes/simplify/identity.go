package simplify

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func identity(c *operands, n *ir.Node) *rewrite.Patch {
	if len(n.Inputs) != 1 || n.Inputs[0] == nil || !c.single(n) {
		return nil
	}
	return same(n, n.Inputs[0], "it copies its operand")
}

func dropout(c *operands, n *ir.Node) *rewrite.Patch {
	if !c.single(n) || n.In(0) == nil {
		return nil
	}
	switch v := c.version(n); {
	case v == 0 || v < 7 && n.Int("is_test", 0) == 0:
		return nil
	case v >= 12 && n.In(2) != nil:
		t := c.Const(n.In(2))
		if t == nil || t.Len() != 1 || t.Int(0) != 0 {
			return nil
		}
	}
	return same(n, n.Inputs[0], "nothing is dropped in inference")
}

func sameCast(c *operands, n *ir.Node) *rewrite.Patch {
	t, ok := c.typ(n.In(0))
	if !ok || !t.DType.Valid() || n.Int("to", 0) != int(t.DType) {
		return nil
	}
	return same(n, n.Inputs[0], "its operand is "+t.DType.ONNX()+" already")
}

// neutral drops arithmetic that gives its operand back, sign of zero included.
func neutral(c *operands, n *ir.Node) *rewrite.Patch {
	if len(n.Inputs) != 2 {
		return nil
	}
	for _, i := range []int{1, 0} {
		if i == 0 && n.Op != "Add" && n.Op != "Mul" {
			break
		}
		k, x := c.Const(n.Inputs[i]), n.Inputs[1-i]
		if k == nil || !isNeutral(n.Op, k) || !c.keepsShape(x, k) {
			continue
		}
		// Pow takes an exponent of another type, but gives the base's.
		return same(n, x, "its other operand is neutral in "+n.Op)
	}
	return nil
}

func isNeutral(op string, k *tensor.Tensor) bool {
	if !k.DType.IsNumeric() || k.Len() == 0 || k.Len() > 1<<16 {
		return false
	}
	for i := range k.Len() {
		f := k.Float(i)
		switch op {
		case "Mul", "Div", "Pow":
			if f != 1 {
				return false
			}
		case "Sub":
			if f != 0 || math.Signbit(f) {
				return false
			}
		case "Add":
			if f != 0 || k.DType.IsFloat() && !math.Signbit(f) {
				return false
			}
		}
	}
	return true
}

// keepsShape reports that broadcasting x with k gives x's shape.
func (c *operands) keepsShape(x *ir.Value, k *tensor.Tensor) bool {
	if len(k.Shape) == 0 {
		return true
	}
	t, ok := c.typ(x)
	if !ok || !t.HasRank || len(t.Shape) < len(k.Shape) {
		return false
	}
	for i, d := range k.Shape {
		if d != 1 && d != t.Shape[len(t.Shape)-len(k.Shape)+i].N {
			return false
		}
	}
	return true
}

// views rearrange no element.
var views = []string{"Reshape", "Flatten", "Squeeze", "Unsqueeze"}

func sameShape(c *operands, n *ir.Node) *rewrite.Patch {
	if n.In(0) == nil || len(n.Outputs) != 1 {
		return nil
	}
	if c.changesNothing(n) {
		return same(n, n.Inputs[0], "it leaves every size as it is")
	}
	in, ok1 := c.typ(n.Inputs[0])
	out, ok2 := c.typ(n.Outputs[0])
	if !ok1 || !ok2 || !equalShapes(in, out, slices.Contains(views, n.Op)) || !c.copies(n) {
		return nil
	}
	return same(n, n.Inputs[0], "its operand has the shape "+in.String()+" already")
}

// changesNothing reports operands that leave any shape as it is.
func (c *operands) changesNothing(n *ir.Node) bool {
	every := func(i int, ok func(v int) bool) bool {
		v, known := c.ints(n.In(i))
		return known && !slices.ContainsFunc(v, func(x int) bool { return !ok(x) })
	}
	one := func(v int) bool { return v == 1 }
	switch n.Op {
	case "Tile":
		return c.opset() >= 6 && every(1, one)
	case "Expand":
		r, ok := c.rank(n.Inputs[0])
		s := c.Const(n.In(1))
		return ok && s != nil && s.Len() <= r && every(1, one)
	case "Pad":
		return c.copies(n)
	case "Slice":
		return every(1, func(v int) bool { return v == 0 }) && every(2, func(v int) bool { return v >= math.MaxInt32 }) &&
			(n.In(4) == nil || every(4, one))
	}
	return false
}

// equalShapes compares shapes; a view keeps the number of elements, so one open
// dimension of it is equal where the others are.
func equalShapes(a, b ir.Type, view bool) bool {
	if !a.HasRank || !b.HasRank || len(a.Shape) != len(b.Shape) {
		return false
	}
	open := 0
	for i := range a.Shape {
		x, y := a.Shape[i].N, b.Shape[i].N
		switch {
		case x < 0 && y < 0:
			open++
		case x != y || x == 0:
			return false
		}
	}
	return open == 0 || view && open == 1
}

// copies reports that a node whose result has its operand's shape also has its
// elements in the same places.
func (c *operands) copies(n *ir.Node) bool {
	switch n.Op {
	case "Slice":
		if n.In(4) == nil {
			return true // steps are 1
		}
		steps, ok := c.ints(n.In(4))
		return ok && !slices.ContainsFunc(steps, func(s int) bool { return s < 1 })
	case "Pad":
		pads, ok := c.intsOrAttr(n, 1, "pads")
		if !ok {
			pads = n.Ints("paddings") // opset 1
		}
		return pads != nil && !slices.ContainsFunc(pads, func(p int) bool { return p != 0 })
	}
	return true
}
