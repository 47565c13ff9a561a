package onnx

import (
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// recurrentOps become one core node where their activations are the usual ones
// (recurrentcore.go), and are unrolled over the sequence where they are not. What
// does not depend on the hidden state, the projection of all inputs, is one
// product before the steps.
var recurrentOps = []Op{
	{Name: "RNN", Since: []int{1, 7, 14, 22}, Expand: func(c *Ctx) { expandRecurrent(c, cell{"RNN", 1, []string{"Tanh"}, 1, stepRNN}) }},
	{Name: "GRU", Since: []int{1, 3, 7, 14, 22}, Expand: func(c *Ctx) {
		expandRecurrent(c, cell{"GRU", 3, []string{"Sigmoid", "Tanh"}, 1, stepGRU})
	}},
	{Name: "LSTM", Since: []int{1, 7, 14, 22}, Expand: func(c *Ctx) {
		expandRecurrent(c, cell{"LSTM", 4, []string{"Sigmoid", "Tanh", "Tanh"}, 2, stepLSTM})
	}},
}

// cell is what tells the recurrent layers apart.
type cell struct {
	name   string
	gates  int
	acts   []string // default activations
	states int      // hidden, and of LSTM the cell state
	step   func(d *direction, x *ir.Value, state []*ir.Value) []*ir.Value
}

type activation struct {
	name        string
	alpha, beta float64
}

// activationParams lists how many of alpha, beta an activation consumes, and
// their defaults.
var activationParams = map[string]struct {
	alpha, beta     bool
	defAlpha, defBe float64
}{
	"relu": {}, "tanh": {}, "sigmoid": {}, "softsign": {}, "softplus": {},
	"affine":          {true, true, 1, 0},
	"leakyrelu":       {true, false, 0.01, 0},
	"thresholdedrelu": {true, false, 1, 0},
	"scaledtanh":      {true, true, 1, 1},
	"hardsigmoid":     {true, true, 0.2, 0.5},
	"elu":             {true, false, 1, 0},
}

func (c *Ctx) floats(name string) []float32 {
	v, _ := c.N.Attr(name)
	f, _ := v.([]float32)
	return f
}

// activations reads n directions' worth of activations and their parameters,
// which are consumed in order by those that take them.
func (c *Ctx) activations(def []string, n int) [][]activation {
	v, _ := c.N.Attr("activations")
	names, _ := v.([]string)
	if len(names) == 0 {
		for range n {
			names = append(names, def...)
		}
	}
	if len(names) != n*len(def) {
		c.Fail("%d activations, %d are needed", len(names), n*len(def))
	}
	alphas, betas := c.floats("activation_alpha"), c.floats("activation_beta")
	take := func(list *[]float32, has bool, def float64) float64 {
		if !has || len(*list) == 0 {
			return def
		}
		x := (*list)[0]
		*list = (*list)[1:]
		return float64(x)
	}
	out := make([][]activation, n)
	for i, name := range names {
		p, ok := activationParams[strings.ToLower(name)]
		if !ok {
			c.Unsupported("activation %q", name)
		}
		a := activation{name: strings.ToLower(name)}
		a.alpha, a.beta = take(&alphas, p.alpha, p.defAlpha), take(&betas, p.beta, p.defBe)
		d := i / len(def)
		out[d] = append(out[d], a)
	}
	return out
}

// lengths are those of the sequences, and the shortest that one can have; nil
// where all go on to the end.
func (c *Ctx) lengths(steps, batch int) (lens *ir.Value, shortest int) {
	if !c.Has(4) {
		return nil, steps
	}
	lens = c.In(4)
	if s := core.Shape(lens); tensor.Numel(s) != batch {
		c.Fail("%d sequence lengths for a batch of %d", tensor.Numel(s), batch)
	}
	if lens.Const != nil {
		shortest = steps
		for i := range batch {
			shortest = min(shortest, int(lens.Const.Int(i)))
		}
	}
	if shortest >= steps {
		return nil, steps
	}
	return c.B.Reshape(lens, batch), max(shortest, 0)
}

// fits fails unless an operand that is given has a shape.
func (c *Ctx) fits(what string, v *ir.Value, shape ...int) {
	if v != nil && !slices.Equal(core.Shape(v), shape) {
		c.Fail("%s is %s, not %s", what, v.Type, tensor.ShapeString(shape))
	}
}

func expandRecurrent(c *Ctx, cl cell) {
	b := c.B
	out := c.In(0).DType()
	work := workType(out)
	batchFirst := c.N.Int("layout", 0) == 1
	load := func(i int) *ir.Value {
		v := c.Opt(i)
		if v == nil {
			return nil
		}
		return b.Cast(v, work)
	}
	if !c.Has(1) || !c.Has(2) {
		c.Fail("the weights are missing")
	}
	x, w, r := load(0), load(1), load(2)
	if x.Rank() != 3 || w.Rank() != 3 || r.Rank() != 3 {
		c.Fail("operands of ranks %d, %d and %d", x.Rank(), w.Rank(), r.Rank())
	}
	swap := func(v *ir.Value) *ir.Value {
		if v == nil || !batchFirst {
			return v
		}
		if v.Rank() != 3 {
			c.Fail("an operand of type %s, not of rank 3", v.Type)
		}
		return b.Transpose(v, 1, 0, 2)
	}
	x = swap(x)
	way := c.OneOf("direction", c.N.Str("direction", "forward"), "forward", "reverse", "bidirectional")
	dirs := 1
	if way == "bidirectional" {
		dirs = 2
	}
	batch, hidden := core.Shape(x)[1], core.Shape(r)[2]
	if core.Shape(w)[0] != dirs || core.Shape(r)[0] != dirs || core.Shape(w)[1] != cl.gates*hidden || core.Shape(r)[1] != cl.gates*hidden || c.N.Int("hidden_size", hidden) != hidden {
		c.Fail("weights %s and %s for direction %s and hidden_size %d", w.Type, r.Type, way, c.N.Int("hidden_size", hidden))
	}
	acts := c.activations(cl.acts, dirs)
	bias := load(3)
	initial := []*ir.Value{swap(load(5))}
	var peep *ir.Value
	if cl.states == 2 {
		initial = append(initial, swap(load(6)))
		peep = load(7)
	}
	c.fits("B", bias, dirs, 2*cl.gates*hidden)
	c.fits("P", peep, dirs, 3*hidden)
	for _, v := range initial {
		c.fits("the initial state", v, dirs, batch, hidden)
	}
	l := &recurrentLayer{c: c, cell: cl, x: x, w: w, r: r, bias: bias, peep: peep, initial: initial, way: way, acts: acts}
	all, last := l.expand()
	if batchFirst {
		all = b.Transpose(all, 2, 0, 1, 3)
	}
	c.Out(0, b.Cast(all, out))
	for i := range last {
		c.Out(1+i, b.Cast(swap(last[i]), out))
	}
}

// recurrentLayer is a recurrent node with its operands in the type that it is computed
// in, the sequence first.
type recurrentLayer struct {
	c                   *Ctx
	cell                cell
	x, w, r, bias, peep *ir.Value
	initial             []*ir.Value // nil where the state begins with zeros
	way                 string
	acts                [][]activation // per direction
}
