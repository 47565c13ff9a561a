package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mlVectorOps are support vector machines: sums over what kernels make of a row
// and each support vector.
var mlVectorOps = []Op{
	{Domain: ml, Name: "SVMRegressor", Since: []int{1}, Expand: expandSVMRegressor},
	{Domain: ml, Name: "SVMClassifier", Since: []int{1}, Expand: expandSVMClassifier},
}

// kernelOf is the kernel of every row and each of some vectors, [rows, vectors].
func (c *Ctx) kernelOf(x *ir.Value, vectors *tensor.Tensor) *ir.Value {
	b := c.B
	gamma, shift, degree := 0.0, 0.0, 0.0
	if p := c.floats("kernel_params"); len(p) == 3 {
		gamma, shift, degree = float64(p[0]), float64(p[1]), float64(p[2])
	} else if len(p) != 0 {
		c.Fail("kernel_params has %d elements, not 3", len(p))
	}
	s, v := core.Shape(x), b.Const(vectors)
	rows, n, features := s[0], vectors.Shape[0], s[1]
	dot := func() *ir.Value { return b.Dot(x, v, nil, nil, []int{1}, []int{1}, tensor.Invalid) }
	affine := func() *ir.Value {
		y := dot()
		return b.Add(b.Mul(y, b.Like(y, gamma)), b.Like(y, shift))
	}
	switch c.OneOf("kernel_type", c.N.Str("kernel_type", "LINEAR"), "LINEAR", "POLY", "RBF", "SIGMOID") {
	case "POLY":
		y := affine()
		return b.Binary("pow", y, b.Like(y, degree))
	case "SIGMOID":
		return b.Tanh(affine())
	case "RBF": // differences first: squares of lengths would cancel
		d := b.Sub(b.Reshape(x, rows, 1, features), b.Reshape(v, 1, n, features))
		y := b.Reduce("reduce_sum", b.Mul(d, d), false, 2)
		return b.Exp(b.Mul(y, b.Like(y, -gamma)))
	}
	return dot()
}

// vectorRows is input 0 as rows, with the support vectors that fit it.
func (c *Ctx) vectorRows(vectors int) (x *ir.Value, v *tensor.Tensor) {
	x, features := c.features()
	if x.Rank() == 1 {
		x = c.B.Reshape(x, 1, features)
	}
	all := c.floats("support_vectors")
	if x.Rank() != 2 || vectors < 1 || len(all) != vectors*features {
		c.Fail("%d numbers for %d support vectors of input %s", len(all), vectors, x.Type)
	}
	return x, tensor.Of(all, vectors, features)
}

func expandSVMRegressor(c *Ctx) {
	b := c.B
	n := c.N.Int("n_supports", 0)
	w, rho := c.floats("coefficients"), c.floats("rho")
	if len(rho) != 1 {
		c.Fail("rho has %d elements, not 1", len(rho))
	}
	var y *ir.Value
	if n == 0 { // the coefficients are the one vector
		x, features := c.features()
		if x.Rank() != 2 || len(w) != features {
			c.Fail("%d coefficients for input %s", len(w), x.Type)
		}
		y = b.Dot(x, b.Const(tensor.Of(w, 1, features)), nil, nil, []int{1}, []int{1}, tensor.Invalid)
	} else {
		x, v := c.vectorRows(n)
		if len(w) != n {
			c.Fail("%d coefficients for %d support vectors", len(w), n)
		}
		y = b.Dot(c.kernelOf(x, v), b.Const(tensor.Of(w, 1, n)), nil, nil, []int{1}, []int{1}, tensor.Invalid)
	}
	y = b.Add(y, b.Like(y, float64(rho[0])))
	if c.N.Int("one_class", 0) != 0 {
		y = b.Where(b.Lt(b.Like(y, 0), y), b.Like(y, 1), b.Like(y, -1))
	}
	c.Out(0, c.postTransform(y))
}

// expandSVMClassifier lets each pair of classes vote. Scores are those of the
// pairs, in order.
func expandSVMClassifier(c *Ctx) {
	b := c.B
	names, ids := c.strings("classlabels_strings"), c.N.Ints("classlabels_ints")
	per := c.N.Ints("vectors_per_class")
	classes := max(len(names), len(ids))
	switch {
	case len(c.floats("prob_a")) > 0:
		c.Unsupported("probabilities of pairs")
	case classes < 3 || len(per) == 0:
		c.Unsupported("a classifier with %d classes and %d counts of support vectors, on whose scores implementations disagree,", classes, len(per))
	case len(per) != classes:
		c.Fail("%d counts of support vectors for %d classes", len(per), classes)
	}
	first := make([]int, classes+1)
	for i, n := range per {
		if n < 0 {
			c.Fail("a class has %d support vectors", n)
		}
		first[i+1] = first[i] + n
	}
	n := first[classes]
	x, v := c.vectorRows(n)
	w, rho := c.floats("coefficients"), c.floats("rho")
	pairs := classes * (classes - 1) / 2
	if len(w) != (classes-1)*n || len(rho) != pairs {
		c.Fail("%d coefficients and %d constants for %d support vectors of %d classes", len(w), len(rho), n, classes)
	}
	table := tensor.New(tensor.F32, pairs, n)
	wins, loses := tensor.New(tensor.F32, classes, pairs), tensor.New(tensor.F32, classes, pairs)
	p := 0
	for i := range classes {
		for j := i + 1; j < classes; j++ {
			for k := first[i]; k < first[i+1]; k++ {
				table.SetFloat(p*n+k, float64(w[(j-1)*n+k]))
			}
			for k := first[j]; k < first[j+1]; k++ {
				table.SetFloat(p*n+k, float64(w[i*n+k]))
			}
			wins.SetFloat(i*pairs+p, 1)
			loses.SetFloat(j*pairs+p, 1)
			p++
		}
	}
	times := func(x *ir.Value, w *tensor.Tensor) *ir.Value {
		return b.Dot(x, b.Const(w), nil, nil, []int{1}, []int{1}, tensor.Invalid)
	}
	y := b.Add(times(c.kernelOf(x, v), table), b.Const(tensor.Of(rho, 1, pairs)))
	above := b.Lt(b.Like(y, 0), y)
	votes := b.Add(times(b.Cast(above, tensor.F32), wins), times(b.Cast(b.Not(above), tensor.F32), loses))
	c.labels(0, b.Drop(b.ArgReduce("argmax", votes, 1, false), 1), names, ids)
	c.Out(1, c.postTransform(y))
}
