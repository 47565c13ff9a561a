package onnx

import (
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// expand makes one core node of the layer, or its steps if the node does not
// know the activations.
func (l *recurrentLayer) expand() (all *ir.Value, last []*ir.Value) {
	acts, ok := l.usual()
	if !ok {
		return l.unrolled()
	}
	c, b := l.c, l.c.B
	r := core.Recurrence{
		Cell: strings.ToLower(l.cell.name), Acts: acts, Clip: max(c.N.Float("clip", 0), 0),
		Coupled: l.cell.name == "LSTM" && c.N.Int("input_forget", 0) != 0,
		After:   l.cell.name == "GRU" && c.N.Int("linear_before_reset", 0) != 0,
		X:       l.projection(), R: l.r, Peep: l.peep,
	}
	dirs, batch, hidden := core.Shape(l.r)[0], core.Shape(l.x)[1], core.Shape(l.r)[2]
	for _, v := range l.initial {
		if v == nil {
			v = b.BroadcastTo(b.Scalar(l.x.DType(), 0), dirs, batch, hidden)
		}
		r.Initial = append(r.Initial, v)
	}
	for k := range dirs {
		r.Reverse = append(r.Reverse, l.way == "reverse" || k == 1)
	}
	r.Lens, _ = c.lengths(core.Shape(l.x)[0], batch)
	if r.After && l.bias != nil {
		r.Bias = b.SliceAxis(l.bias, 1, 5*hidden, hidden)
	}
	out := b.Recurrent(r)
	return out[0], out[1:]
}

// usual gives the activations that both directions have, if core knows them.
func (l *recurrentLayer) usual() ([]string, bool) {
	var acts []string
	for _, a := range l.acts[0] {
		if !core.HasActivation(a.name) {
			return nil, false
		}
		acts = append(acts, a.name)
	}
	for _, other := range l.acts[1:] {
		if !slices.Equal(other, l.acts[0]) {
			return nil, false
		}
	}
	return acts, true
}

// projection is x·wᵀ of all steps and directions with all biases that can be
// added before the steps, [T,N,D·G·H].
func (l *recurrentLayer) projection() *ir.Value {
	b := l.c.B
	w := core.Shape(l.w)
	dirs, rows := w[0], w[1]
	y := b.Dot(l.x, b.Reshape(l.w, dirs*rows, w[2]), nil, nil, []int{2}, []int{1}, tensor.Invalid)
	if l.bias == nil {
		return y
	}
	wb, rb := b.SliceAxis(l.bias, 1, 0, rows), b.SliceAxis(l.bias, 1, rows, rows)
	if l.cell.name == "GRU" && l.c.N.Int("linear_before_reset", 0) != 0 {
		hidden := rows / 3 // the candidate's part is behind the reset gate
		rb = b.Concat(1, b.SliceAxis(rb, 1, 0, 2*hidden), b.BroadcastTo(b.Like(rb, 0), dirs, hidden))
	}
	return b.Add(y, b.Reshape(b.Add(wb, rb), dirs*rows))
}
