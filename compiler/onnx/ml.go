package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// ml is the domain of classical machine learning.
const ml = "ai.onnx.ml"

// mlOps prepare features and look things up. What is arithmetic expands into
// core ops; look-ups by string run in the evaluator.
var mlOps = []Op{
	{Domain: ml, Name: "ArrayFeatureExtractor", Since: []int{1}, Expand: expandArrayFeatureExtractor},
	{Domain: ml, Name: "Binarizer", Since: []int{1}, Expand: func(c *Ctx) {
		x := c.In(0)
		above := c.B.Lt(c.B.Like(x, c.N.Float("threshold", 0)), x)
		c.Out(0, c.B.Cast(above, x.DType()))
	}},
	{Domain: ml, Name: "Scaler", Since: []int{1}, Expand: expandScaler},
	{Domain: ml, Name: "Normalizer", Since: []int{1}, Expand: expandNormalizer},
	{Domain: ml, Name: "Imputer", Since: []int{1}, Expand: expandImputer},
	{Domain: ml, Name: "FeatureVectorizer", Since: []int{1}, Expand: expandFeatureVectorizer},
	{Domain: ml, Name: "OneHotEncoder", Since: []int{1}, Expand: expandOneHotEncoder},
	{Domain: ml, Name: "LabelEncoder", Since: []int{1, 2, 4}, Expand: expandLabelEncoder},
	{Domain: ml, Name: "CategoryMapper", Since: []int{1}, Expand: expandCategoryMapper},
}

func expandArrayFeatureExtractor(c *Ctx) {
	x, idx := c.In(0), c.In(1)
	if x.Rank() == 0 {
		c.Fail("input 0 is a scalar")
	}
	s := core.Shape(x)
	n := tensor.Numel(core.Shape(idx))
	if len(s) == 1 {
		s = []int{1, s[0]}
		x = c.B.Reshape(x, s...)
	}
	c.Out(0, c.B.Gather(x, len(s)-1, c.B.Reshape(idx, n)))
}

// row is a float attribute that holds one number for all features, or one for
// each.
func (c *Ctx) row(name string, v []float32, features int, def float64) *ir.Value {
	if len(v) == 0 {
		return c.B.Scalar(tensor.F32, def)
	}
	if len(v) != 1 && len(v) != features {
		c.Fail("%s has %d elements for %d features", name, len(v), features)
	}
	return c.B.Const(tensor.Of(v, len(v)))
}

// features is input 0 in f32 and the size of its last axis.
func (c *Ctx) features() (x *ir.Value, n int) {
	x = c.In(0)
	s := core.Shape(x)
	if len(s) < 1 {
		c.Fail("input 0 is a scalar")
	}
	return c.B.Cast(x, tensor.F32), s[len(s)-1]
}

func expandScaler(c *Ctx) {
	x, n := c.features()
	off, scale := c.row("offset", c.floats("offset"), n, 0), c.row("scale", c.floats("scale"), n, 1)
	c.Out(0, c.B.Mul(c.B.Sub(x, off), scale))
}

func expandNormalizer(c *Ctx) {
	b := c.B
	x, _ := c.features()
	last := x.Rank() - 1
	var size *ir.Value
	switch c.OneOf("norm", c.N.Str("norm", "MAX"), "MAX", "L1", "L2") {
	case "MAX":
		size = b.Reduce("reduce_max", b.Abs(x), true, last)
	case "L1":
		size = b.Reduce("reduce_sum", b.Abs(x), true, last)
	case "L2":
		size = b.Sqrt(b.Reduce("reduce_sum", b.Mul(x, x), true, last))
	}
	c.Out(0, b.Where(b.Eq(size, b.Like(size, 0)), x, b.Div(x, size)))
}

func expandImputer(c *Ctx) {
	b, x := c.B, c.In(0)
	if x.Rank() == 0 {
		c.Fail("the input is a scalar")
	}
	n := core.Shape(x)[x.Rank()-1]
	if x.DType().IsInteger() {
		vals := c.N.Ints("imputed_value_int64s")
		if len(vals) != 1 && len(vals) != n {
			c.Fail("%d imputed values for %d features", len(vals), n)
		}
		missing := b.Eq(x, b.ScalarInt(x.DType(), int64(c.N.Int("replaced_value_int64", 0))))
		c.Out(0, b.Where(missing, b.Cast(b.Ints(vals...), x.DType()), x))
		return
	}
	vals := c.floats("imputed_value_floats")
	if len(vals) == 0 {
		c.Fail("imputed_value_floats is missing")
	}
	replaced := c.N.Float("replaced_value_float", 0)
	missing := b.Eq(x, b.Like(x, replaced))
	if math.IsNaN(replaced) {
		missing = b.Unary("isnan", x)
	}
	c.Out(0, b.Where(missing, b.Cast(c.row("imputed_value_floats", vals, n, 0), x.DType()), x))
}

func expandFeatureVectorizer(c *Ctx) {
	b := c.B
	widths := c.N.Ints("inputdimensions")
	if len(widths) != c.NIn() {
		c.Fail("%d inputdimensions for %d inputs", len(widths), c.NIn())
	}
	parts := make([]*ir.Value, c.NIn())
	for i, w := range widths {
		x := c.In(i)
		if x.Rank() == 1 {
			x = b.Reshape(x, 1, core.Shape(x)[0])
		}
		s := core.Shape(x)
		if len(s) != 2 {
			c.Fail("input %d is %s", i, x.Type)
		}
		x = b.Cast(x, tensor.F32)
		switch {
		case s[1] > w:
			x = b.SliceAxis(x, 1, 0, w)
		case s[1] < w:
			x = b.Pad(x, []int{0, 0}, []int{0, w - s[1]}, b.Scalar(tensor.F32, 0))
		}
		parts[i] = x
	}
	c.Out(0, b.Concat(1, parts...))
}

func expandOneHotEncoder(c *Ctx) {
	b, x := c.B, c.In(0)
	strict := c.N.Int("zeros", 1) == 0 // an unknown category is an error then
	if x.DType() == tensor.String {
		t, cats := c.texts(0), c.strings("cats_strings")
		out := tensor.New(tensor.F32, append(slices.Clone(t.Shape), len(cats))...)
		for i, s := range t.Strings() {
			k := slices.Index(cats, s)
			if k < 0 && strict {
				c.Fail("%q is no category", s)
			}
			if k >= 0 {
				out.SetFloat(i*len(cats)+k, 1)
			}
		}
		c.Out(0, b.Const(out))
		return
	}
	cats := c.N.Ints("cats_int64s")
	if strict {
		t := c.Tensor(0, "a category (with zeros=0, which makes an unknown one an error)")
		for i := range t.Len() {
			if !slices.Contains(cats, int(t.Int(i))) {
				c.Fail("%d is no category", t.Int(i))
			}
		}
	}
	s := append(slices.Clone(core.Shape(x)), 1)
	c.Out(0, b.Cast(b.Eq(b.Reshape(b.Cast(x, tensor.I64), s...), b.Ints(cats...)), tensor.F32))
}

// list is a tensor of what an attribute lists, of any of the three element
// types; nil if none is there.
func (c *Ctx) list(name string) *tensor.Tensor {
	if s := c.strings(name + "_strings"); len(s) > 0 {
		t, err := tensor.FromStrings([]int{len(s)}, s)
		if err != nil {
			c.Fail("%v", err)
		}
		return t
	}
	if v := c.N.Ints(name + "_int64s"); len(v) > 0 {
		return tensor.Of(ir.Int64s(v), len(v))
	}
	if v := c.floats(name + "_floats"); len(v) > 0 {
		return tensor.Of(v, len(v))
	}
	return c.N.TensorAttr(name + "_tensor")
}

// labelDefault is what an unknown key maps to.
func (c *Ctx) labelDefault(d tensor.DType) *tensor.Tensor {
	if t := c.N.TensorAttr("default_tensor"); t != nil {
		return t
	}
	t := tensor.New(d, 1)
	switch {
	case d == tensor.String:
		t.Strings()[0] = c.N.Str("default_string", "_Unused")
	case d.IsFloat():
		t.SetFloat(0, c.N.Float("default_float", math.Copysign(0, -1)))
	default:
		t.SetInt(0, int64(c.N.Int("default_int64", -1)))
	}
	return t
}

func expandLabelEncoder(c *Ctx) {
	keys, values := c.list("keys"), c.list("values")
	if c.Version < 2 { // classes_strings are the labels 0, 1, …
		classes := c.strings("classes_strings")
		var err error
		if keys, err = tensor.FromStrings([]int{len(classes)}, classes); err != nil {
			c.Fail("%v", err)
		}
		values = tensor.New(tensor.I64, len(classes))
		for i := range classes {
			values.SetInt(i, int64(i))
		}
		if c.In(0).DType() != tensor.String {
			keys, values = values, keys
		}
	}
	if keys == nil || values == nil || keys.Len() != values.Len() {
		c.Fail("keys and values do not pair up")
	}
	def := c.labelDefault(values.DType)
	if def.DType != values.DType || def.Len() != 1 {
		c.Fail("the default %s is not one value of type %s", def, values.DType.ONNX())
	}
	c.Out(0, c.lookUp(keys, values, def))
}

// lookUp maps every element of input 0 by a table of keys and values.
func (c *Ctx) lookUp(keys, values, def *tensor.Tensor) *ir.Value {
	b, x := c.B, c.In(0)
	if x.DType() != keys.DType {
		c.Fail("keys are %s, the input is %s", keys.DType.ONNX(), x.DType().ONNX())
	}
	if x.Const == nil && keys.DType != tensor.String && values.DType != tensor.String && keys.Len() <= 256 {
		y := b.Reshape(b.Const(def))
		for i := keys.Len() - 1; i >= 0; i-- { // the first of equal keys counts
			y = b.Where(c.matches(x, keys, i), b.Const(element(values, i)), y)
		}
		return b.BroadcastTo(y, core.Shape(x)...)
	}
	t := c.Tensor(0, "the label")
	at := map[string]int{}
	for i := keys.Len() - 1; i >= 0; i-- {
		at[keyOf(keys, i)] = i
	}
	out := tensor.New(values.DType, t.Shape...)
	for i := range t.Len() {
		if k, ok := at[keyOf(t, i)]; ok {
			copyElement(out, i, values, k)
		} else {
			copyElement(out, i, def, 0)
		}
	}
	return b.Const(out)
}

func (c *Ctx) matches(x *ir.Value, keys *tensor.Tensor, i int) *ir.Value {
	if keys.DType.IsFloat() && math.IsNaN(keys.Float(i)) {
		return c.B.Unary("isnan", x)
	}
	return c.B.Eq(x, c.B.Const(element(keys, i)))
}

// keyOf names an element; all NaNs are one key, as are the two zeros.
func keyOf(t *tensor.Tensor, i int) string {
	switch {
	case t.DType == tensor.String:
		return t.Strings()[i]
	case t.DType.IsFloat():
		return fmt.Sprint(t.Float(i) + 0)
	}
	return fmt.Sprint(t.Int(i))
}

// element is one element as a scalar.
func element(t *tensor.Tensor, i int) *tensor.Tensor {
	s := tensor.New(t.DType)
	copyElement(s, 0, t, i)
	return s
}

func copyElement(dst *tensor.Tensor, to int, src *tensor.Tensor, from int) {
	switch {
	case dst.DType == tensor.String:
		dst.Strings()[to] = src.Strings()[from]
	case dst.DType.IsFloat():
		dst.SetFloat(to, src.Float(from))
	default:
		dst.SetInt(to, src.Int(from))
	}
}

func expandCategoryMapper(c *Ctx) {
	names, ids := c.strings("cats_strings"), c.N.Ints("cats_int64s")
	if len(names) != len(ids) {
		c.Fail("%d category names for %d numbers", len(names), len(ids))
	}
	keys, err := tensor.FromStrings([]int{len(names)}, names)
	if err != nil {
		c.Fail("%v", err)
	}
	values := tensor.Of(ir.Int64s(ids), len(ids))
	if c.In(0).DType() != tensor.String {
		keys, values = values, keys
	}
	c.Out(0, c.lookUp(keys, values, c.labelDefault(values.DType)))
}
