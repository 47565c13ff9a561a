package onnx

import (
	"fmt"
	"math"
	"math/rand"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// layer is a recurrent layer computed element by element, from the equations
// of the ONNX documentation, as a reference for the unrolled expansion.
type layer struct {
	op                 string
	x, w, r, b, h0, c0 *tensor.Tensor // as ONNX lays them out; b, h0, c0 may be nil
	p                  *tensor.Tensor
	lens               []int
	clip               float64
	lbr, forget        bool
	f, g, h            func(float64) float64
	reverse            bool // of direction 0
}

func at3(t *tensor.Tensor, i, j, k int) float64 {
	return t.Float((i*t.Shape[1]+j)*t.Shape[2] + k)
}

// run gives y[t][dir][batch][unit] and the last states [dir][batch][unit].
func (l layer) run() (y, yh, yc *tensor.Tensor) {
	steps, batch, in := l.x.Shape[0], l.x.Shape[1], l.x.Shape[2]
	dirs, hid := l.r.Shape[0], l.r.Shape[2]
	gates := l.r.Shape[1] / hid
	y, yh, yc = tensor.New(tensor.F32, steps, dirs, batch, hid), tensor.New(tensor.F32, dirs, batch, hid), tensor.New(tensor.F32, dirs, batch, hid)
	cut := func(v float64) float64 {
		if l.clip > 0 {
			return math.Max(-l.clip, math.Min(l.clip, v))
		}
		return v
	}
	for d := range dirs {
		for n := range batch {
			h, c := make([]float64, hid), make([]float64, hid)
			for u := range hid {
				if l.h0 != nil {
					h[u] = at3(l.h0, d, n, u)
				}
				if l.c0 != nil {
					c[u] = at3(l.c0, d, n, u)
				}
			}
			length := steps
			if l.lens != nil {
				length = l.lens[n]
			}
			for s := range length {
				t := s
				if l.reverse && d == 0 || d == 1 {
					t = length - 1 - s
				}
				input := func(gate, u int) float64 { // W·x and its bias
					v := 0.0
					for k := range in {
						v += at3(l.w, d, gate*hid+u, k) * at3(l.x, t, n, k)
					}
					if l.b != nil {
						v += l.b.Float(d*2*gates*hid + gate*hid + u)
					}
					return v
				}
				state := func(gate, u int, h []float64) float64 { // R·h and its bias
					v := 0.0
					for k := range hid {
						v += at3(l.r, d, gate*hid+u, k) * h[k]
					}
					if l.b != nil {
						v += l.b.Float(d*2*gates*hid + (gates+gate)*hid + u)
					}
					return v
				}
				peep := func(i, u int, c float64) float64 {
					if l.p == nil {
						return 0
					}
					return l.p.Float(d*3*hid+i*hid+u) * c
				}
				nh, nc := make([]float64, hid), make([]float64, hid)
				switch l.op {
				case "RNN":
					for u := range hid {
						nh[u] = l.f(cut(input(0, u) + state(0, u, h)))
					}
				case "GRU":
					rh := make([]float64, hid)
					for u := range hid {
						rh[u] = l.f(cut(input(1, u)+state(1, u, h))) * h[u]
					}
					for u := range hid {
						z := l.f(cut(input(0, u) + state(0, u, h)))
						q := input(2, u) + state(2, u, rh)
						if l.lbr {
							q = input(2, u) + l.f(cut(input(1, u)+state(1, u, h)))*state(2, u, h)
						}
						nh[u] = (1-z)*l.g(cut(q)) + z*h[u]
					}
				case "LSTM":
					for u := range hid {
						i := l.f(cut(input(0, u) + state(0, u, h) + peep(0, u, c[u])))
						f := l.f(cut(input(2, u) + state(2, u, h) + peep(2, u, c[u])))
						if l.forget {
							f = 1 - i
						}
						nc[u] = f*c[u] + i*l.g(cut(input(3, u)+state(3, u, h)))
						nh[u] = l.f(cut(input(1, u)+state(1, u, h)+peep(1, u, nc[u]))) * l.h(nc[u])
					}
				}
				h, c = nh, nc
				for u := range hid {
					y.SetFloat(((t*dirs+d)*batch+n)*hid+u, h[u])
				}
			}
			for u := range hid {
				yh.SetFloat((d*batch+n)*hid+u, h[u])
				yc.SetFloat((d*batch+n)*hid+u, c[u])
			}
		}
	}
	return y, yh, yc
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// sample is a tensor of reproducible values in -1…1.
func sample(r *rand.Rand, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, 2*r.Float64()-1)
	}
	return t
}

// TestRecurrent covers what ONNX's cases leave out: directions, lengths that
// differ, clip, activations with parameters, coupled gates, initial states.
func TestRecurrent(t *testing.T) {
	const steps, batch, in, hid = 4, 3, 2, 3
	gates := map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4}
	for _, op := range []string{"RNN", "GRU", "LSTM"} {
		for k, way := range []string{"forward", "reverse", "bidirectional"} {
			for variant := range 4 {
				r := rand.New(rand.NewSource(int64(100*gates[op] + 10*k + variant)))
				dirs := 1 + k/2
				l := layer{op: op, f: sigmoid, g: math.Tanh, h: math.Tanh, reverse: way == "reverse"}
				if op == "RNN" {
					l.f = math.Tanh
				}
				l.x, l.w, l.r = sample(r, steps, batch, in), sample(r, dirs, gates[op]*hid, in), sample(r, dirs, gates[op]*hid, hid)
				c := rowCase{name: fmt.Sprintf("%s %s %d", op, way, variant), op: op, opset: 14, attrs: attrs("hidden_size", hid, "direction", way)}
				var lens *tensor.Tensor
				if variant > 0 {
					l.b, l.h0 = sample(r, dirs, 2*gates[op]*hid), sample(r, dirs, batch, hid)
				}
				if variant > 1 {
					l.lens = []int{4, 1, 2}
					lens = i32([]int{3}, 4, 1, 2)
					l.clip = 0.5
					c.attrs = append(c.attrs, attr("clip", 0.5))
				}
				if op == "LSTM" && variant > 0 {
					l.c0, l.p = sample(r, dirs, batch, hid), sample(r, dirs, 3*hid)
				}
				if variant == 3 {
					l.vary(&c, dirs)
				}
				y, yh, yc := l.run()
				c.in = []*tensor.Tensor{l.x, l.w, l.r, l.b, lens, l.h0}
				c.want = []*tensor.Tensor{y, yh}
				if op == "LSTM" {
					c.in = append(c.in, l.c0, l.p)
					c.want = append(c.want, yc)
				}
				runRows(t, []rowCase{c})
				if lens != nil { // the lengths known: the same
					c.bind = []int{4}
					runRows(t, []rowCase{c})
				}
			}
		}
	}
}

// vary takes other activations, with parameters that they consume in order,
// and the switches of the op.
func (l *layer) vary(c *rowCase, dirs int) {
	names := map[string][]string{"RNN": {"LeakyRelu"}, "GRU": {"HardSigmoid", "ScaledTanh"}, "LSTM": {"HardSigmoid", "Affine", "Softsign"}}[l.op]
	hard := func(x float64) float64 { return math.Max(0, math.Min(1, 0.25*x+0.5)) }
	var alpha, beta []float32
	switch l.op {
	case "RNN":
		alpha = []float32{0.125}
		l.f = func(x float64) float64 { return math.Max(x, 0.125*x) }
	case "GRU":
		alpha, beta = []float32{0.25, 1.5}, []float32{0.5, 0.75}
		l.f, l.g, l.lbr = hard, func(x float64) float64 { return 1.5 * math.Tanh(0.75*x) }, true
		c.attrs = append(c.attrs, attr("linear_before_reset", 1))
	case "LSTM":
		alpha, beta = []float32{0.25, 2}, []float32{0.5, 0.25}
		l.f, l.g, l.forget = hard, func(x float64) float64 { return 2*x + 0.25 }, true
		l.h = func(x float64) float64 { return x / (1 + math.Abs(x)) }
		c.attrs = append(c.attrs, attr("input_forget", 1))
	}
	var all []string
	var a, b []float32
	for range dirs {
		all, a, b = append(all, names...), append(a, alpha...), append(b, beta...)
	}
	c.attrs = append(c.attrs, attr("activations", all), attr("activation_alpha", a), attr("activation_beta", b))
}

func TestRecurrentEdges(t *testing.T) {
	w, r := f32([]int{1, 1, 1}, 1), f32([]int{1, 1, 1}, 1)
	h0 := f32([]int{1, 1, 1}, 0.5)
	runRows(t, []rowCase{
		{name: "no steps", op: "RNN", opset: 14, in: []*tensor.Tensor{f32([]int{0, 1, 1}), w, r, nil, nil, h0},
			want: []*tensor.Tensor{f32([]int{0, 1, 1, 1}), h0}},
		// One direction, batch first: y = relu(x + h), h = 0.5, 1.5, 3.5.
		{name: "batch first", op: "RNN", opset: 14, attrs: []ir.Attr{attr("layout", 1), attr("activations", []string{"Relu"})},
			in:   []*tensor.Tensor{f32([]int{1, 2, 1}, 1, 2), w, r, nil, nil, h0},
			want: []*tensor.Tensor{f32([]int{1, 2, 1, 1}, 1.5, 3.5), f32([]int{1, 1, 1}, 3.5)}},
	})
	refused(t, []rowCase{
		{name: "unknown activation", op: "RNN", opset: 14, attrs: []ir.Attr{attr("activations", []string{"Swish"})},
			in: []*tensor.Tensor{f32([]int{1, 1, 1}, 1), w, r}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 0)}},
		{name: "too long to unroll", op: "RNN", opset: 14, attrs: []ir.Attr{attr("activations", []string{"Softsign"})}, in: []*tensor.Tensor{tensor.New(tensor.F32, maxUnroll+1, 1, 1), w, r},
			want: []*tensor.Tensor{tensor.New(tensor.F32, maxUnroll+1, 1, 1, 1)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "lengths of another batch", op: "RNN", opset: 14, in: []*tensor.Tensor{f32([]int{1, 1, 1}, 1), w, r, nil, i32([]int{2}, 1, 1)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 0)}},
		{name: "weights of the wrong direction", op: "RNN", opset: 14, attrs: attrs("direction", "bidirectional"), in: []*tensor.Tensor{f32([]int{1, 1, 1}, 1), w, r}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 0)}},
	})
}
