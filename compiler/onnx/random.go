package onnx

import (
	"hash/fnv"
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// randomOps draw numbers. Only the evaluator runs them: a compiled model is a
// function of its inputs.
var randomOps = []Op{
	{Name: "RandomUniform", Since: []int{1, 22}, Expand: func(c *Ctx) { randomFill(c, c.N.Ints("shape"), tensor.F32, uniform) }},
	{Name: "RandomNormal", Since: []int{1, 22}, Expand: func(c *Ctx) { randomFill(c, c.N.Ints("shape"), tensor.F32, normal) }},
	{Name: "RandomUniformLike", Since: []int{1, 22}, Expand: func(c *Ctx) {
		randomFill(c, core.Shape(c.In(0)), c.In(0).DType(), uniform)
	}},
	{Name: "RandomNormalLike", Since: []int{1, 22}, Expand: func(c *Ctx) {
		randomFill(c, core.Shape(c.In(0)), c.In(0).DType(), normal)
	}},
	{Name: "Bernoulli", Since: []int{15, 22}, Expand: expandBernoulli},
	{Name: "Multinomial", Since: []int{7, 22}, Expand: expandMultinomial},
	{Name: "Dropout", Since: []int{1, 6, 7, 10, 12, 13, 22}, Expand: expandDropout},
}

// generator is a Mersenne twister (MT19937) read as numpy's RandomState reads
// it, which ONNX's reference implementation draws from.
type generator struct {
	key   [624]uint32
	pos   int
	spare float64 // a normal number drawn in advance
	has   bool
}

func newGenerator(seed uint32) *generator {
	g := &generator{pos: len(generator{}.key)}
	g.key[0] = seed
	for i := 1; i < len(g.key); i++ {
		p := g.key[i-1]
		g.key[i] = 1812433253*(p^p>>30) + uint32(i)
	}
	return g
}

func (g *generator) next() uint32 {
	const n, m = 624, 397
	if g.pos == n {
		for i := range n {
			y := g.key[i]&0x80000000 | g.key[(i+1)%n]&0x7fffffff
			g.key[i] = g.key[(i+m)%n] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		g.pos = 0
	}
	y := g.key[g.pos]
	g.pos++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// float is uniform in [0,1) with 53 random bits.
func (g *generator) float() float64 {
	a, b := g.next()>>5, g.next()>>6
	return (float64(a)*(1<<26) + float64(b)) / (1 << 53)
}

// gauss is normal with mean 0 and deviation 1, by the polar method.
func (g *generator) gauss() float64 {
	if g.has {
		g.has = false
		return g.spare
	}
	for {
		x, y := 2*g.float()-1, 2*g.float()-1
		if r := x*x + y*y; r < 1 && r != 0 {
			f := math.Sqrt(-2 * math.Log(r) / r)
			g.spare, g.has = f*x, true
			return f * y
		}
	}
}

// random starts the node's generator: from the attribute seed, or from the
// node's name, so that runs repeat and nodes differ.
func random(c *Ctx) *generator {
	if !c.Evaluating() {
		c.Unsupported("drawing random numbers in a compiled model")
	}
	if v, ok := c.N.Attr("seed"); ok {
		switch s := v.(type) {
		case float32:
			return newGenerator(uint32(int64(s)))
		case int64:
			return newGenerator(uint32(s))
		}
	}
	h := fnv.New32a()
	h.Write([]byte(c.N.Label()))
	return newGenerator(h.Sum32())
}

func uniform(c *Ctx, g *generator) float64 {
	lo, hi := c.N.Float("low", 0), c.N.Float("high", 1)
	return lo + (hi-lo)*g.float()
}

func normal(c *Ctx, g *generator) float64 {
	return c.N.Float("mean", 0) + c.N.Float("scale", 1)*g.gauss()
}

// drawnType is the attribute dtype, or a default.
func drawnType(c *Ctx, def tensor.DType) tensor.DType {
	d := tensor.DType(c.N.Int("dtype", int(def)))
	if !d.IsNumeric() && d != tensor.Bool {
		c.Unsupported("dtype=%s", d.ONNX())
	}
	return d
}

func randomFill(c *Ctx, shape []int, def tensor.DType, draw func(c *Ctx, g *generator) float64) {
	g := random(c)
	if _, err := tensor.Count(shape); err != nil {
		c.Fail("%v", err)
	}
	t := tensor.New(drawnType(c, def), shape...)
	for i := range t.Len() {
		t.SetFloat(i, draw(c, g))
	}
	c.Out(0, c.B.Const(t))
}

func expandBernoulli(c *Ctx) {
	g := random(c)
	p := c.Tensor(0, "the probability")
	t := tensor.New(drawnType(c, p.DType), p.Shape...)
	for i := range t.Len() {
		if g.float() < p.Float(i) {
			t.SetFloat(i, 1)
		}
	}
	c.Out(0, c.B.Const(t))
}

// expandMultinomial draws classes from unnormalised log-probabilities.
func expandMultinomial(c *Ctx) {
	g := random(c)
	x := c.Tensor(0, "the log-probabilities")
	n := c.N.Int("sample_size", 1)
	if len(x.Shape) != 2 || x.Shape[1] == 0 || n < 0 || n > 1<<30 {
		c.Fail("operand %s, sample_size %d", x, n)
	}
	rows, classes := x.Shape[0], x.Shape[1]
	t := tensor.New(drawnType(c, tensor.I32), rows, n)
	cum := make([]float64, classes)
	for r := range rows {
		top := math.Inf(-1)
		for k := range classes {
			top = max(top, x.Float(r*classes+k))
		}
		sum := 0.0
		for k := range classes {
			sum += math.Exp(x.Float(r*classes+k) - top)
			cum[k] = sum
		}
		for s := range n {
			v, k := g.float()*sum, 0
			for k < classes-1 && cum[k] <= v {
				k++
			}
			t.SetInt(r*n+s, int64(k))
		}
	}
	c.Out(0, c.B.Const(t))
}

// dropoutRatio is how much training mode drops; 0 outside training.
func dropoutRatio(c *Ctx) float64 {
	ratio, training := 0.0, false
	if c.Version >= 12 {
		if c.Has(2) {
			t := c.Tensor(2, "training_mode")
			if t.Len() != 1 {
				c.Fail("training_mode has %d elements", t.Len())
			}
			training = t.Int(0) != 0
		}
		if !training {
			return 0
		}
		ratio = 0.5
		if c.Has(1) {
			t := c.Tensor(1, "ratio")
			if t.Len() != 1 {
				c.Fail("ratio has %d elements", t.Len())
			}
			ratio = t.Float(0)
		}
	} else {
		// Opsets 1 and 6 have is_test; from 7 to 11 Dropout only infers.
		training = c.Version < 7 && c.N.Int("is_test", 0) == 0
		ratio = c.N.Float("ratio", 0.5)
		if !training {
			ratio = 0
		}
	}
	if ratio < 0 || ratio >= 1 {
		c.Fail("ratio %v is outside [0,1)", ratio)
	}
	return ratio
}

func expandDropout(c *Ctx) {
	b := c.B
	x := c.In(0)
	ratio := dropoutRatio(c)
	maskType := tensor.Bool
	if c.Version < 10 {
		maskType = x.DType()
	}
	one := tensor.New(maskType)
	one.SetInt(0, 1)
	if ratio == 0 {
		c.Out(0, x)
		if c.Wants(1) {
			c.Out(1, b.BroadcastTo(b.Const(one), core.Shape(x)...))
		}
		return
	}
	g := random(c)
	keep := tensor.New(tensor.Bool, core.Shape(x)...)
	for i := range keep.Len() {
		if g.float() >= ratio {
			keep.SetInt(i, 1)
		}
	}
	mask := b.Const(keep)
	y := widely(c, x, func(x *ir.Value) *ir.Value {
		return b.Mul(b.Where(mask, x, b.Like(x, 0)), b.Like(x, 1/(1-ratio)))
	})
	c.Out(0, y)
	c.Out(1, b.Cast(mask, maskType))
}
