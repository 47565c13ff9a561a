package core

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// recurrentOps run over a sequence with a state. The product of all inputs with
// their weights does not depend on the state and is a contraction of its own.
var recurrentOps = []*Op{
	{Name: "recurrent", Doc: "operands x[T,N,D·G·H] (inputs times weights, with biases, of G gates and D directions), r[D,G·H,H], h[D,N,H], for lstm c[D,N,H], then those that attributes announce: lengths[N] (lens), peepholes[D,3·H] (peep), bias[D,H] of the candidate's product (bias); attributes cell (rnn; gru with gates z, r, h; lstm with gates i, o, f, c), acts, reverse (per direction), clip, coupled (lstm: f = 1−i), after (gru: r scales the product r·h instead of h); results y[T,D,N,H], zero behind a sequence's end, and the last states", Class: Ordered, Infer: inferRecurrent, Eval: evalRecurrent},
}

// Recurrence is a recurrent node, read and checked.
type Recurrence struct {
	Cell                       string
	Steps, Batch, Dirs, Hidden int
	Gates                      int
	Reverse                    []bool   // per direction
	Acts                       []string // as ONNX orders them: f, g, h
	Clip                       float64  // 0: none
	Coupled, After             bool
	X, R                       *ir.Value
	Initial                    []*ir.Value // h, and of lstm c
	Lens, Peep, Bias           *ir.Value   // nil: none
}

// cells lists gates, states and activations of each cell.
var cells = map[string]struct{ gates, states, acts int }{"rnn": {1, 1, 1}, "gru": {3, 1, 2}, "lstm": {4, 2, 3}}

var activations = map[string]func(float64) float64{
	"sigmoid": func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
	"tanh":    math.Tanh,
	"relu": func(x float64) float64 {
		if x < 0 {
			return 0
		}
		return x
	},
}

// HasActivation reports whether recurrent nodes know an activation.
func HasActivation(name string) bool { return activations[name] != nil }

// Recurrent adds a recurrent node of the given form and gives its results: the
// hidden states of all steps, then the last states.
func (b *Builder) Recurrent(r Recurrence) []*ir.Value {
	in := append([]*ir.Value{r.X, r.R}, r.Initial...)
	attrs := []any{"cell", r.Cell, "acts", strings.Join(r.Acts, ",")}
	rev := make([]int, len(r.Reverse))
	for i, v := range r.Reverse {
		if v {
			rev[i] = 1
		}
	}
	attrs = append(attrs, "reverse", rev)
	for _, o := range []struct {
		name string
		v    *ir.Value
	}{{"lens", r.Lens}, {"peep", r.Peep}, {"bias", r.Bias}} {
		if o.v != nil {
			in, attrs = append(in, o.v), append(attrs, o.name, true)
		}
	}
	if r.Clip != 0 {
		attrs = append(attrs, "clip", float32(r.Clip))
	}
	if r.Coupled {
		attrs = append(attrs, "coupled", true)
	}
	if r.After {
		attrs = append(attrs, "after", true)
	}
	return b.NodeN("recurrent", in, attrs...)
}

// RecurrenceOf reads a recurrent node.
func RecurrenceOf(n *ir.Node) (Recurrence, error) {
	r := Recurrence{Cell: n.Str("cell", ""), Acts: strings.Split(n.Str("acts", ""), ","), Clip: n.Float("clip", 0),
		Coupled: n.Int("coupled", 0) == 1, After: n.Int("after", 0) == 1}
	cell, ok := cells[r.Cell]
	if !ok {
		return r, fmt.Errorf("unknown cell %q", r.Cell)
	}
	if len(r.Acts) != cell.acts || slices.ContainsFunc(r.Acts, func(a string) bool { return !HasActivation(a) }) {
		return r, fmt.Errorf("activations %v of a %s", r.Acts, r.Cell)
	}
	r.Gates = cell.gates
	in := n.Inputs
	next := func() *ir.Value {
		if len(in) == 0 {
			return nil
		}
		v := in[0]
		in = in[1:]
		return v
	}
	r.X, r.R = next(), next()
	for range cell.states {
		r.Initial = append(r.Initial, next())
	}
	for _, o := range []struct {
		name string
		v    **ir.Value
	}{{"lens", &r.Lens}, {"peep", &r.Peep}, {"bias", &r.Bias}} {
		if n.Int(o.name, 0) == 1 {
			*o.v = next()
		}
	}
	if len(in) > 0 || r.Initial[cell.states-1] == nil {
		return r, fmt.Errorf("%d operands of a %s", len(n.Inputs), r.Cell)
	}
	for _, v := range n.Ints("reverse") {
		r.Reverse = append(r.Reverse, v == 1)
	}
	return r, r.check()
}

// check holds the operands against each other.
func (r *Recurrence) check() error {
	if r.X.Rank() != 3 || r.R.Rank() != 3 {
		return fmt.Errorf("operands %s and %s", r.X.Type, r.R.Type)
	}
	x, w := shapeOf(r.X), shapeOf(r.R)
	r.Steps, r.Batch, r.Dirs, r.Hidden = x[0], x[1], w[0], w[2]
	d := r.X.DType()
	if d != tensor.F32 && d != tensor.F64 {
		return fmt.Errorf("not defined for %s", d.ONNX())
	}
	if len(r.Reverse) != r.Dirs {
		return fmt.Errorf("%d directions, %d are said to be reversed or not", r.Dirs, len(r.Reverse))
	}
	fits := func(v *ir.Value, shape ...int) error {
		if v != nil && (v.DType() != d || !slices.Equal(shapeOf(v), shape)) {
			return fmt.Errorf("an operand is %s, not %s %s", v.Type, d.ONNX(), tensor.ShapeString(shape))
		}
		return nil
	}
	if r.Lens != nil && (!r.Lens.DType().IsInteger() || !slices.Equal(shapeOf(r.Lens), []int{r.Batch})) {
		return fmt.Errorf("lengths %s for a batch of %d", r.Lens.Type, r.Batch)
	}
	for _, err := range []error{
		fits(r.X, r.Steps, r.Batch, r.Dirs*r.Gates*r.Hidden), fits(r.R, r.Dirs, r.Gates*r.Hidden, r.Hidden),
		fits(r.Initial[0], r.Dirs, r.Batch, r.Hidden), fits(r.Initial[len(r.Initial)-1], r.Dirs, r.Batch, r.Hidden),
		fits(r.Peep, r.Dirs, 3*r.Hidden), fits(r.Bias, r.Dirs, r.Hidden),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func inferRecurrent(n *ir.Node) ([]ir.Type, error) {
	r, err := RecurrenceOf(n)
	if err != nil {
		return nil, err
	}
	if _, err := tensor.Count([]int{r.Steps, r.Dirs, r.Batch, r.Hidden}); err != nil {
		return nil, err
	}
	d := r.X.DType()
	out := []ir.Type{ir.TensorType(d, r.Steps, r.Dirs, r.Batch, r.Hidden)}
	for range r.Initial {
		out = append(out, ir.TensorType(d, r.Dirs, r.Batch, r.Hidden))
	}
	return out, nil
}

// evalRecurrent computes each step in float64; the states, which are values of
// the element type, are rounded to it.
func evalRecurrent(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	r, err := RecurrenceOf(n)
	if err != nil {
		return nil, err
	}
	of := map[*ir.Value][]float64{}
	for i, v := range n.Inputs {
		of[v] = in[i].Floats()
	}
	types, err := inferRecurrent(n)
	if err != nil {
		return nil, err
	}
	out := make([]*tensor.Tensor, len(types))
	for i, t := range types {
		s, _ := t.Static()
		out[i] = tensor.New(t.DType, s...)
	}
	round := func(x float64) float64 { return x }
	if r.X.DType() == tensor.F32 {
		round = func(x float64) float64 { return float64(float32(x)) }
	}
	parallel(r.Dirs*r.Batch, func(job int) {
		q := newSequence(r, of, job/r.Batch, job%r.Batch, round)
		length := r.Steps
		if r.Lens != nil {
			length = min(int(of[r.Lens][job%r.Batch]), r.Steps)
		}
		for t := range r.Steps {
			if r.Reverse[q.d] {
				t = r.Steps - 1 - t
			}
			if t >= length {
				continue
			}
			q.step(t)
			for u, v := range q.h {
				out[0].SetFloat(((t*r.Dirs+q.d)*r.Batch+q.n)*r.Hidden+u, v)
			}
		}
		for u := range r.Hidden {
			out[1].SetFloat(job*r.Hidden+u, q.h[u])
			if q.c != nil {
				out[2].SetFloat(job*r.Hidden+u, q.c[u])
			}
		}
	})
	return out, nil
}

// sequence is one sequence of the batch in one direction.
type sequence struct {
	Recurrence
	d, n                int
	x, r, p, b          []float64
	h, c                []float64
	pre, scaled, second []float64 // gates before activation, r∘h, the candidate's product
	act                 []func(float64) float64
	round               func(float64) float64
}

func newSequence(r Recurrence, of map[*ir.Value][]float64, d, n int, round func(float64) float64) *sequence {
	h := r.Hidden
	part := func(v *ir.Value, i, size int) []float64 {
		if v == nil {
			return nil
		}
		return of[v][i*size : (i+1)*size]
	}
	q := &sequence{Recurrence: r, d: d, n: n, x: of[r.X], r: part(r.R, d, r.Gates*h*h), p: part(r.Peep, d, 3*h), b: part(r.Bias, d, h), round: round}
	q.h = slices.Clone(part(r.Initial[0], d*r.Batch+n, h))
	if r.Cell == "lstm" {
		q.c = slices.Clone(part(r.Initial[1], d*r.Batch+n, h))
	}
	q.pre, q.scaled, q.second = make([]float64, r.Gates*h), make([]float64, h), make([]float64, h)
	for _, a := range r.Acts {
		q.act = append(q.act, activations[a])
	}
	return q
}

// product is row i of the recurrent weights times a vector.
func (q *sequence) product(i int, v []float64) float64 {
	row := q.r[i*q.Hidden : (i+1)*q.Hidden]
	s := 0.0
	for k, w := range row {
		s += w * v[k]
	}
	return s
}

// on applies activation i after the clip.
func (q *sequence) on(i int, x float64) float64 {
	if q.Clip > 0 {
		x = math.Max(-q.Clip, math.Min(q.Clip, x))
	}
	return q.act[i](x)
}

func (q *sequence) step(t int) {
	h := q.Hidden
	x := q.x[((t*q.Batch+q.n)*q.Dirs+q.d)*q.Gates*h:][:q.Gates*h]
	gates := q.Gates
	if q.Cell == "gru" {
		gates = 2 // the candidate's product comes later, or is scaled
	}
	for i := range gates * h {
		q.pre[i] = x[i] + q.product(i, q.h)
	}
	switch q.Cell {
	case "rnn":
		for u := range h {
			q.h[u] = q.round(q.on(0, q.pre[u]))
		}
	case "gru":
		q.gru(x)
	case "lstm":
		q.lstm()
	}
}

func (q *sequence) gru(x []float64) {
	h := q.Hidden
	for u := range h {
		q.scaled[u] = q.on(0, q.pre[h+u])
		if !q.After {
			q.scaled[u] *= q.h[u]
		}
	}
	for u := range h {
		var c float64
		if q.After {
			c = q.product(2*h+u, q.h)
			if q.b != nil {
				c += q.b[u]
			}
			c *= q.scaled[u]
		} else {
			c = q.product(2*h+u, q.scaled)
		}
		q.second[u] = q.on(1, x[2*h+u]+c)
	}
	for u := range h {
		z := q.on(0, q.pre[u])
		q.h[u] = q.round((1-z)*q.second[u] + z*q.h[u])
	}
}

func (q *sequence) lstm() {
	h := q.Hidden
	peep := func(i, u int) float64 {
		if q.p == nil {
			return 0
		}
		return q.p[i*h+u] * q.c[u]
	}
	for u := range h {
		i := q.on(0, q.pre[u]+peep(0, u))
		f := 1 - i
		if !q.Coupled {
			f = q.on(0, q.pre[2*h+u]+peep(2, u))
		}
		q.c[u] = q.round(f*q.c[u] + i*q.on(1, q.pre[3*h+u]))
		o := q.on(0, q.pre[h+u]+peep(1, u))
		q.h[u] = q.round(o * q.act[2](q.c[u]))
	}
}
