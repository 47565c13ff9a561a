package onnx

import (
	"math"
	"math/rand"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attended is softmax attention element by element: q [b,s,h·d], k and v
// [b,t,h·d]; add gives what is added to a score.
func attended(q, k, v *tensor.Tensor, heads int, add func(b, s, t int) float64) *tensor.Tensor {
	batch, steps, keys := q.Shape[0], q.Shape[1], k.Shape[1]
	dk, dv := q.Shape[2]/heads, v.Shape[2]/heads
	y := tensor.New(tensor.F32, batch, steps, v.Shape[2])
	for b := range batch {
		for h := range heads {
			for s := range steps {
				p, sum := make([]float64, keys), 0.0
				for t := range keys {
					dot := 0.0
					for d := range dk {
						dot += at3(q, b, s, h*dk+d) * at3(k, b, t, h*dk+d)
					}
					p[t] = math.Exp(dot/math.Sqrt(float64(dk)) + add(b, s, t))
					sum += p[t]
				}
				for d := range dv {
					acc := 0.0
					for t := range keys {
						acc += p[t] / sum * at3(v, b, t, h*dv+d)
					}
					y.SetFloat((b*steps+s)*v.Shape[2]+h*dv+d, acc)
				}
			}
		}
	}
	return y
}

// biasedBy adds part of a bias to the last axis.
func biasedBy(x, bias *tensor.Tensor, from int) *tensor.Tensor {
	y := x.Clone()
	for i := range y.Len() {
		y.SetFloat(i, x.Float(i)+bias.Float(from+i%x.Shape[2]))
	}
	return y
}

func TestContribAttention(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	q, k, v := sample(r, 2, 3, 4), sample(r, 2, 5, 4), sample(r, 2, 5, 6)
	bias := sample(r, 14)
	inf := math.Inf(-1)
	none := func(int, int, int) float64 { return 0 }
	flags := i32([]int{2, 5}, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1)
	lens := i32([]int{2}, 2, 5)
	extra := sample(r, 1, 1, 3, 5)
	mha := func(name string, want *tensor.Tensor, in []*tensor.Tensor, as ...any) rowCase {
		return rowCase{name: name, domain: microsoft, op: "MultiHeadAttention", attrs: attrs(append(as, "num_heads", 2)...), in: in, want: list(want)}
	}
	k3, v3 := sample(r, 2, 3, 4), sample(r, 2, 3, 4)
	// The weights pick queries, keys and values out of an input of 12 columns.
	eye := tensor.New(tensor.F32, 12, 12)
	for i := range 12 {
		eye.SetFloat(13*i, 1)
	}
	joined := tensor.New(tensor.F32, 2, 3, 12)
	for i := range 6 {
		for c := range 4 {
			joined.SetFloat(12*i+c, q.Float(4*i+c))
			joined.SetFloat(12*i+4+c, k3.Float(4*i+c))
			joined.SetFloat(12*i+8+c, v3.Float(4*i+c))
		}
	}
	causal := func(_, s, t int) float64 {
		if t > s {
			return inf
		}
		return 0
	}
	runRows(t, []rowCase{
		mha("plain", attended(q, k, v, 2, none), list(q, k, v)),
		mha("bias", attended(biasedBy(q, bias, 0), biasedBy(k, bias, 4), biasedBy(v, bias, 8), 2, none), list(q, k, v, bias)),
		mha("flags", attended(q, k, v, 2, func(b, _, t int) float64 {
			if flags.Int(5*b+t) == 0 {
				return -50
			}
			return 0
		}), list(q, k, v, nil, flags), "mask_filter_value", -50.0),
		mha("lengths", attended(q, k, v, 2, func(b, _, t int) float64 {
			if t >= int(lens.Int(b)) {
				return -10000
			}
			return 0
		}), list(q, k, v, nil, lens)),
		mha("scores biased", attended(q, k, v, 2, func(_, s, t int) float64 { return extra.Float(5*s + t) }), list(q, k, v, nil, nil, extra)),
		mha("causal", attended(q, k3, v3, 2, causal), list(q, k3, v3), "unidirectional", 1),
		{name: "packed", domain: microsoft, op: "Attention", attrs: attrs("num_heads", 2, "unidirectional", 1), in: list(joined, eye), want: list(attended(q, k3, v3, 2, causal))},
	})
	refused(t, []rowCase{mha("packed operands", q, list(q)), mha("a mask of another shape", q, list(q, k, v, nil, i32([]int{8}, 0, 0, 0, 0, 0, 0, 0, 0)))})
}

func TestContribRotary(t *testing.T) {
	// Angles of 0°, 90° and 180° by position; a head of two elements turns.
	cos, sin := f32([]int{3, 1}, 1, 0, -1), f32([]int{3, 1}, 0, 1, 0)
	x := f32([]int{1, 2, 4}, 1, 2, 3, 4, 5, 6, 7, 8)
	rot := func(name string, pos, want *tensor.Tensor) rowCase {
		return rowCase{name: name, domain: microsoft, op: "RotaryEmbedding", in: list(x, pos, cos, sin), want: list(want)}
	}
	runRows(t, []rowCase{
		// From position 1 on: (a, b) → (-b, a), then (-a, -b).
		rot("offset", i64([]int{1}, 1), f32([]int{1, 2, 4}, -2, 1, -4, 3, -5, -6, -7, -8)),
		rot("positions", i64([]int{1, 2}, 2, 0), f32([]int{1, 2, 4}, -1, -2, -3, -4, 5, 6, 7, 8)),
	})
}
