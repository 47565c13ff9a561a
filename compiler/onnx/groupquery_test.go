package onnx

import (
	"math"
	"math/rand"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// quarter turns (a, b) by pos·90°.
func quarter(a, b float64, pos int) (float64, float64) {
	for range pos % 4 {
		a, b = -b, a
	}
	return a, b
}

// groupAttended is attention of heads of two elements over a cache, token by token:
// q [n,s,2·heads], k and v [n,s,2·groups], pasts [n,groups,p,2]. Sequence i
// holds lens[i] tokens, the last s of which are new; queries and keys turn by
// 90° per position; a window of 0 is none.
func groupAttended(q, k, v, pk, pv *tensor.Tensor, lens []int, total, window int) (y, keys, vals *tensor.Tensor) {
	n, s, heads, groups, past := q.Shape[0], q.Shape[1], q.Shape[2]/2, k.Shape[2]/2, pk.Shape[2]
	total = max(total, past)
	y = tensor.New(tensor.F32, n, s, 2*heads)
	keys, vals = tensor.New(tensor.F32, n, groups, total, 2), tensor.New(tensor.F32, n, groups, total, 2)
	for i := range n {
		first := lens[i] - s
		for g := range groups {
			for t := range lens[i] {
				to := ((i*groups+g)*total + t) * 2
				if t < first {
					from := ((i*groups+g)*past + t) * 2
					for e := range 2 {
						keys.SetFloat(to+e, pk.Float(from+e))
						vals.SetFloat(to+e, pv.Float(from+e))
					}
					continue
				}
				a, b := quarter(at3(k, i, t-first, 2*g), at3(k, i, t-first, 2*g+1), t)
				keys.SetFloat(to, a)
				keys.SetFloat(to+1, b)
				vals.SetFloat(to, at3(v, i, t-first, 2*g))
				vals.SetFloat(to+1, at3(v, i, t-first, 2*g+1))
			}
		}
		for h := range heads {
			for r := range s {
				a, b := quarter(at3(q, i, r, 2*h), at3(q, i, r, 2*h+1), first+r)
				base := (i*groups + h*groups/heads) * total * 2
				var sum, y0, y1 float64
				for t := range first + r + 1 {
					if window > 0 && t <= first+r-window {
						continue
					}
					p := math.Exp((a*keys.Float(base+2*t) + b*keys.Float(base+2*t+1)) / math.Sqrt2)
					sum, y0, y1 = sum+p, y0+p*vals.Float(base+2*t), y1+p*vals.Float(base+2*t+1)
				}
				y.SetFloat((i*s+r)*2*heads+2*h, y0/sum)
				y.SetFloat((i*s+r)*2*heads+2*h+1, y1/sum)
			}
		}
	}
	return y, keys, vals
}

func TestGroupQueryAttention(t *testing.T) {
	r := rand.New(rand.NewSource(6))
	cos, sin := f32([]int{8, 1}, 1, 0, -1, 0, 1, 0, -1, 0), f32([]int{8, 1}, 0, 1, 0, -1, 0, 1, 0, -1)
	one := func(name string, steps, past, total, window int, lens ...int) rowCase {
		n := len(lens)
		q, k, v := sample(r, n, steps, 8), sample(r, n, steps, 4), sample(r, n, steps, 4)
		pk, pv := sample(r, n, 2, past, 2), sample(r, n, 2, past, 2)
		y, keys, vals := groupAttended(q, k, v, pk, pv, lens, total, window)
		less := tensor.New(tensor.I32, n)
		for i, l := range lens {
			less.SetInt(i, int64(l-1))
		}
		c := rowCase{name: name, domain: microsoft, op: "GroupQueryAttention", want: list(y, keys, vals), bind: []int{6},
			in:    list(q, k, v, pk, pv, less, i32([]int{1}, int32(total)), cos, sin),
			attrs: attrs("num_heads", 4, "kv_num_heads", 2, "do_rotary", 1)}
		if window > 0 {
			c.attrs = append(c.attrs, attr("local_window_size", window))
		}
		return c
	}
	even := one("a step", 1, 4, 5, 0, 5)
	even.bind = []int{5, 6}
	sinks := one("head sinks", 1, 4, 5, 0, 5)
	sinks.in = append(sinks.in, nil, nil, sample(r, 4))
	runRows(t, []rowCase{
		even,
		one("a step, lengths at run time", 1, 4, 5, 0, 5, 3),
		one("several tokens", 3, 4, 7, 0, 7),
		one("a prompt", 4, 0, 4, 0, 4),
		one("a window", 2, 4, 6, 3, 6, 4),
		one("a cache with room", 1, 6, 4, 0, 4),
	})
	refused(t, []rowCase{sinks})
}
