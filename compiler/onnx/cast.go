package onnx

import (
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// castOps change element types.
var castOps = []Op{
	{Name: "Cast", Since: []int{1, 6, 9, 13, 19, 21, 23, 24, 25}, Expand: func(c *Ctx) {
		c.Out(0, c.cast(c.In(0), c.dtypeAttr("to", tensor.Invalid)))
	}},
	{Name: "CastLike", Since: []int{15, 19, 21, 23, 24, 25}, Expand: func(c *Ctx) {
		c.Out(0, c.cast(c.In(0), c.In(1).DType()))
	}},
	{Name: "BitCast", Since: []int{26}, Expand: expandBitCast},
}

// cast is ONNX Cast with the node's saturate and round_mode attributes.
func (c *Ctx) cast(x *ir.Value, to tensor.DType) *ir.Value {
	from := x.DType()
	plain := func(d tensor.DType) bool { return d.IsNumeric() || d == tensor.Bool }
	switch {
	case to == tensor.Invalid:
		c.Fail("attribute to is missing")
	case from == to:
		return x
	case from == tensor.String && plain(to):
		return c.B.Const(c.parseStrings(c.Tensor(0, "the string input"), to))
	case to == tensor.String && plain(from):
		return c.B.Const(formatStrings(c.Tensor(0, "the input of a cast to string")))
	case !plain(from) || !plain(to):
		c.Unsupported("a cast from %s to %s", from.ONNX(), to.ONNX())
	}
	if to == tensor.F16 || to == tensor.BF16 {
		return c.B.Node("cast", []*ir.Value{x}, "to", to, "keep", 1)
	}
	if !to.IsFloat() || to.Bits() > 8 {
		return c.B.Cast(x, to)
	}
	attrs := []any{"to", to}
	if c.N.Int("saturate", 1) == 0 {
		attrs = append(attrs, "saturate", 0)
	}
	if to == tensor.F8E8M0 {
		mode := c.OneOf("round_mode", c.N.Str("round_mode", "up"), "up", "down", "nearest")
		attrs = append(attrs, "round_mode", mode)
	}
	return c.B.Node("cast", []*ir.Value{x}, attrs...)
}

// parseStrings reads numbers: plain or scientific decimals, and in any case
// INF, -INF and NAN. Decimals with a fraction are truncated for integers.
func (c *Ctx) parseStrings(t *tensor.Tensor, to tensor.DType) *tensor.Tensor {
	out := tensor.New(to, t.Shape...)
	for i, s := range t.Strings() {
		s = strings.TrimSpace(s)
		if to.Kind() == tensor.KindUint {
			if v, err := strconv.ParseUint(s, 10, 64); err == nil {
				out.SetInt(i, int64(v))
				continue
			}
		}
		if v, err := strconv.ParseInt(s, 10, 64); err == nil && !to.IsFloat() {
			out.SetInt(i, v)
			continue
		}
		v, err := strconv.ParseFloat(s, 64)
		if to == tensor.F32 && err == nil {
			// One rounding, from the decimal itself.
			v, _ = strconv.ParseFloat(s, 32)
		}
		if err != nil && !math.IsInf(v, 0) {
			c.Fail("string %q is no number", s)
		}
		out.SetFloat(i, v)
	}
	return out
}

// formatStrings writes numbers with as few digits as tell them apart.
func formatStrings(t *tensor.Tensor) *tensor.Tensor {
	out := tensor.New(tensor.String, t.Shape...)
	bits := 32
	if t.DType == tensor.F64 {
		bits = 64
	}
	for i := range t.Len() {
		s := &out.Strings()[i]
		switch {
		case t.DType == tensor.Bool:
			*s = "False"
			if t.Int(i) != 0 {
				*s = "True"
			}
		case t.DType == tensor.U64:
			*s = strconv.FormatUint(t.Uint(i), 10)
		case t.DType.IsInteger():
			*s = strconv.FormatInt(t.Int(i), 10)
		default:
			*s = formatFloat(t.Float(i), bits)
		}
	}
	return out
}

func formatFloat(v float64, bits int) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "INF"
	case math.IsInf(v, -1):
		return "-INF"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, bits)
	}
	s := strconv.FormatFloat(v, 'f', -1, bits)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func expandBitCast(c *Ctx) {
	x, to := c.In(0), c.dtypeAttr("to", tensor.Invalid)
	if to == tensor.Invalid {
		c.Fail("attribute to is missing")
	}
	if x.DType().Bits() != to.Bits() || to == tensor.String {
		c.Unsupported("a bit cast from %s to %s", x.DType().ONNX(), to.ONNX())
	}
	c.Out(0, c.B.Bitcast(x, to))
}
