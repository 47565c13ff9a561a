package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mlLinearOps are models that are one product.
var mlLinearOps = []Op{
	{Domain: ml, Name: "LinearRegressor", Since: []int{1}, Expand: expandLinearRegressor},
	{Domain: ml, Name: "LinearClassifier", Since: []int{1}, Expand: expandLinearClassifier},
}

// linear is x·coefficientsᵀ + intercepts, for n results.
func (c *Ctx) linear(n int) *ir.Value {
	b := c.B
	x, features := c.features()
	if x.Rank() == 1 {
		x = b.Reshape(x, 1, features)
	}
	w := c.floats("coefficients")
	if x.Rank() != 2 || n < 1 || len(w) != n*features {
		c.Fail("%d coefficients for %d results of %d features", len(w), n, features)
	}
	y := b.Dot(x, b.Const(tensor.Of(w, n, features)), nil, nil, []int{1}, []int{1}, tensor.Invalid)
	return b.Add(y, c.row("intercepts", c.floats("intercepts"), n, 0))
}

// postTransform turns scores [n, k] into what post_transform names.
func (c *Ctx) postTransform(x *ir.Value) *ir.Value {
	return c.transformScores(c.N.Str("post_transform", "NONE"), x)
}

func (c *Ctx) transformScores(kind string, x *ir.Value) *ir.Value {
	b := c.B
	switch c.OneOf("post_transform", kind, "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT") {
	case "SOFTMAX":
		return c.softmaxLast(x, false)
	case "LOGISTIC":
		return b.Sigmoid(x)
	case "SOFTMAX_ZERO": // scores of 0 stay 0
		top := b.Reduce("reduce_max", x, true, x.Rank()-1)
		e := b.Where(b.Eq(x, b.Like(x, 0)), b.Like(x, 0), b.Exp(b.Sub(x, top)))
		sum := b.Reduce("reduce_sum", e, true, x.Rank()-1)
		return b.Where(b.Eq(sum, b.Like(x, 0)), b.Like(x, 0.5), b.Div(e, sum))
	case "PROBIT":
		return c.probit(x)
	}
	return x
}

// probit is √2·erf⁻¹(2x-1), with Winitzki's approximation of erf⁻¹, which
// runtimes use.
func (c *Ctx) probit(x *ir.Value) *ir.Value {
	b := c.B
	k := func(v float64) *ir.Value { return b.Like(x, v) }
	z := b.Sub(b.Mul(k(2), x), k(1))
	room := b.Mul(b.Sub(k(1), z), b.Add(k(1), z))
	log := b.Log(room)
	const a = 0.147
	v := b.Add(k(2/(math.Pi*a)), b.Mul(k(0.5), log))
	inner := b.Sub(b.Sqrt(b.Sub(b.Mul(v, v), b.Mul(k(1/a), log))), v)
	y := b.Mul(k(math.Sqrt2), b.Mul(b.Unary("sign", z), b.Sqrt(inner)))
	return b.Where(b.Eq(room, k(0)), b.Mul(b.Unary("sign", z), k(math.Inf(1))), y)
}

func expandLinearRegressor(c *Ctx) {
	c.Out(0, c.postTransform(c.linear(c.N.Int("targets", 1))))
}

// labels writes output i: the class label at each position of a column of
// indices.
func (c *Ctx) labels(i int, idx *ir.Value, names []string, ids []int) {
	if len(names) == 0 {
		c.Out(i, c.B.Gather(c.B.Ints(ids...), 0, idx))
		return
	}
	if !c.Wants(i) {
		return
	}
	if idx.Const == nil {
		c.Dynamic("a label that is text")
	}
	out := make([]string, idx.Const.Len())
	for k := range out {
		out[k] = names[idx.Const.Int(k)]
	}
	c.outTexts(i, core.Shape(idx), out)
}

func expandLinearClassifier(c *Ctx) {
	b := c.B
	names, ids := c.strings("classlabels_strings"), c.N.Ints("classlabels_ints")
	classes := max(len(names), len(ids))
	x, features := c.features()
	n := 0
	if features > 0 {
		n = len(c.floats("coefficients")) / features
	}
	if classes != n && !(classes == 2 && n == 1) {
		c.Fail("%d class labels for %d scores of input %s", classes, n, x.Type)
	}
	if classes == 1 {
		c.Unsupported("a classifier with one class")
	}
	y := c.linear(n)
	if n == 1 { // one score of two classes is that of the second
		if kind := c.N.Str("post_transform", "NONE"); kind != "LOGISTIC" {
			c.Unsupported("one score for two classes with post_transform=%q, on which implementations disagree,", kind)
		}
		y = b.Concat(1, b.Neg(y), y)
	}
	c.labels(0, b.Drop(b.ArgReduce("argmax", y, 1, false), 1), names, ids)
	c.Out(1, c.postTransform(y))
}
