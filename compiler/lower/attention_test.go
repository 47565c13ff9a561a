package lower_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attentionCase is softmax(between(q·kᵀ))·v in one of the ways to write it.
type attentionCase struct {
	name                 string
	heads, keyHeads      int
	queries, keys, d, dv int
	between              func(b *core.Builder, s *ir.Value) *ir.Value
	bounded, reciprocal  bool // the sum and the maximum have bounds; one division a row
	want                 bool // one kernel at 8 lanes
	after, watched       bool
}

func (c attentionCase) graph(r *rand.Rand) *ir.Graph {
	b := core.NewBuilder("g")
	q := b.Input("q", tensor.F32, 1, c.heads, c.queries, c.d)
	k := b.Input("k", tensor.F32, 1, c.keyHeads, c.keys, c.d)
	v := b.Input("v", tensor.F32, 1, c.keyHeads, c.keys, c.dv)
	share := c.heads / c.keyHeads * c.queries
	s := b.Dot(b.Reshape(q, 1, c.keyHeads, share, c.d), k, []int{0, 1}, []int{0, 1}, []int{3}, []int{3}, tensor.F32)
	x := b.Reshape(s, 1, c.heads, c.queries, c.keys)
	x = b.Mul(x, b.Scalar(tensor.F32, 0.5))
	if c.between != nil {
		x = c.between(b, x)
	}
	top := b.Reduce("reduce_max", x, true, 3)
	if c.bounded {
		top = b.Max(top, b.Like(x, -math.MaxFloat32))
	}
	e := b.Exp(b.Sub(x, top))
	sum := b.Reduce("reduce_sum", e, true, 3)
	if c.bounded {
		sum = b.Max(sum, b.Like(x, 1e-7))
	}
	p := b.Div(e, sum)
	if c.reciprocal {
		p = b.Mul(e, b.Div(b.Like(x, 1), sum))
	}
	if c.watched {
		b.Output(p)
	}
	p = b.Reshape(p, 1, c.keyHeads, share, c.keys)
	y := b.Reshape(b.Dot(p, v, []int{0, 1}, []int{0, 1}, []int{3}, []int{2}, tensor.F32), 1, c.heads, c.queries, c.dv)
	if c.after {
		y = b.Relu(b.Add(y, b.Input("z", tensor.F32, core.Shape(y)...)))
	}
	b.Output(y)
	return b.G
}

// TestAttention holds that attention in its usual forms is one kernel that keeps
// no matrix of scores, and gives what the evaluator gives at every width, where
// rows are masked in part and as a whole too.
func TestAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 8))
	inf := math.Inf(1)
	none := func(b *core.Builder) *ir.Value { return b.Scalar(tensor.F32, -inf) }
	causal := func(offset int64) func(b *core.Builder, x *ir.Value) *ir.Value {
		return func(b *core.Builder, x *ir.Value) *ir.Value {
			s := core.Shape(x)
			row, col := b.Iota(tensor.I64, 2, 1, 1, s[2], 1), b.Iota(tensor.I64, 3, 1, 1, 1, s[3])
			return b.Where(b.Le(col, b.Add(row, b.ScalarInt(tensor.I64, offset))), x, none(b))
		}
	}
	summed := func(at func(row, key, keys int) float64) func(b *core.Builder, x *ir.Value) *ir.Value {
		return func(b *core.Builder, x *ir.Value) *ir.Value {
			s := core.Shape(x)
			m := tensor.New(tensor.F32, 1, 1, s[2], s[3])
			for i := range m.Len() {
				m.SetFloat(i, at(i/s[3], i%s[3], s[3]))
			}
			return b.Add(x, b.Const(m))
		}
	}
	capped := func(b *core.Builder, x *ir.Value) *ir.Value {
		return b.Mul(b.Tanh(b.Mul(x, b.Scalar(tensor.F32, 0.25))), b.Scalar(tensor.F32, 4))
	}
	hidden := func(at func(row, key, keys int) bool) func(b *core.Builder, x *ir.Value) *ir.Value {
		return summed(func(row, key, keys int) float64 {
			if at(row, key, keys) {
				return -inf
			}
			return float64(key%5) / 4
		})
	}
	for _, c := range []attentionCase{
		{name: "plain", heads: 2, keyHeads: 2, queries: 9, keys: 24, d: 8, dv: 16, want: true},
		{name: "one division a row", heads: 2, keyHeads: 2, queries: 9, keys: 24, d: 8, dv: 16, reciprocal: true, want: true},
		{name: "keys and widths that fill no vector", heads: 1, keyHeads: 1, queries: 5, keys: 19, d: 5, dv: 11, reciprocal: true, want: true},
		{name: "fewer keys than a wide vector holds", heads: 2, keyHeads: 2, queries: 7, keys: 9, d: 8, dv: 8, want: true},
		{name: "fewer keys than lanes", heads: 2, keyHeads: 2, queries: 9, keys: 11, d: 8, dv: 6, want: true},
		{name: "shared keys", heads: 6, keyHeads: 2, queries: 7, keys: 17, d: 8, dv: 8, between: causal(3), bounded: true, want: true},
		{name: "soft cap", heads: 1, keyHeads: 1, queries: 6, keys: 16, d: 8, dv: 8, between: capped, want: true},
		{name: "sums and bounds behind it", heads: 2, keyHeads: 2, queries: 20, keys: 16, d: 8, dv: 24, after: true, want: true},
		{name: "many rows", heads: 1, keyHeads: 1, queries: 131, keys: 16, d: 4, dv: 8, want: true},
		{name: "rows that see nothing, bounded: zeros", heads: 1, keyHeads: 1, queries: 6, keys: 16, d: 8, dv: 8, between: causal(-3), bounded: true, want: true},
		{name: "rows that see nothing: no numbers", heads: 1, keyHeads: 1, queries: 6, keys: 16, d: 8, dv: 8, between: causal(-3), want: true},
		{name: "keys in blocks", heads: 1, keyHeads: 1, queries: 5, keys: 1100, d: 4, dv: 8, between: summed(func(r, k, n int) float64 { return float64(k%97)/16 + float64(k)/100 }), want: true},
		{name: "blocks, the first and the last hidden", heads: 1, keyHeads: 1, queries: 4, keys: 1600, d: 4, dv: 8,
			between: hidden(func(r, k, n int) bool { return r == 1 && k < 700 || r == 2 && k > 300 }), want: true},
		{name: "blocks, rows that see nothing", heads: 1, keyHeads: 1, queries: 4, keys: 1030, d: 4, dv: 8,
			between: hidden(func(r, k, n int) bool { return r == 1 }), want: true},
		{name: "blocks, rows that see nothing, bounded", heads: 1, keyHeads: 1, queries: 4, keys: 1030, d: 4, dv: 8, bounded: true,
			between: hidden(func(r, k, n int) bool { return r == 1 }), want: true},
		{name: "blocks, endless scores", heads: 1, keyHeads: 1, queries: 4, keys: 1030, d: 4, dv: 8,
			between: summed(func(r, k, n int) float64 {
				if r == 2 && k == 600 {
					return inf
				}
				return 0
			}), want: true},
		{name: "the smallest numbers as a mask", heads: 1, keyHeads: 1, queries: 4, keys: 1030, d: 4, dv: 8,
			between: summed(func(r, k, n int) float64 {
				if r == 1 || r == 2 && k < 1000 {
					return -math.MaxFloat32
				}
				return 0
			}), want: true},
		{name: "probabilities that are read elsewhere", heads: 1, keyHeads: 1, queries: 5, keys: 16, d: 8, dv: 8, watched: true},
		{name: "too few rows", heads: 1, keyHeads: 1, queries: 2, keys: 16, d: 8, dv: 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, o := range widths {
				p := lowered(t, c.graph(r), o)
				if o.Lanes != 8 {
					continue
				}
				if got := slices.Contains(families(p), "attention"); got != c.want {
					t.Errorf("kernels %v; one for attention: %v, want %v", families(p), got, c.want)
				}
				// Room for the scores of all rows would be more than that of keys, values and results laid out.
				if all := 4 * c.heads * c.queries * c.keys; c.want && c.queries > 100 && p.Workspace >= all {
					t.Errorf("workspace of %d bytes, the scores alone are %d", p.Workspace, all)
				}
			}
		})
	}
}
