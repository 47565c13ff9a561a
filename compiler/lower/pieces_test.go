package lower_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// network builds small networks of images.
type network struct {
	*core.Builder
	r *rand.Rand
}

// small are values whose sums along all axes but the first are about as large as one.
func (n network) small(shape ...int) *ir.Value {
	t := tensor.New(tensor.F32, shape...)
	scale := 3 / math.Sqrt(float64(tensor.Numel(shape[1:])))
	for i := range t.Len() {
		t.SetFloat(i, (n.r.Float64()-0.5)*scale)
	}
	return n.Const(t)
}

func (n network) perChannel(x *ir.Value) *ir.Value {
	s := core.Shape(x)
	return n.BroadcastTo(n.Reshape(n.small(s[1], 1, 1), 1, s[1], 1, 1), s...)
}

// conv is a convolution with a bias; groups 0: one for each channel.
func (n network) conv(x *ir.Value, oc, kernel, stride, groups int) *ir.Value {
	ic := core.Shape(x)[1]
	if groups == 0 {
		groups = ic
	}
	two := func(n int) []int { return []int{n, n} }
	y := n.Conv(x, n.small(oc, ic/groups, kernel, kernel), core.ConvSpec{Strides: two(stride), Dilations: two(1), Lo: two(kernel / 2), Hi: two(kernel / 2), Groups: groups})
	return n.Add(y, n.perChannel(y))
}

func (n network) shuffle(x *ir.Value, groups int) *ir.Value {
	s := core.Shape(x)
	y := n.Transpose(n.Reshape(x, 1, groups, s[1]/groups, s[2], s[3]), 0, 2, 1, 3, 4)
	return n.Reshape(y, s...)
}

func (n network) max(x *ir.Value) *ir.Value {
	two := func(n int) []int { return []int{n, n} }
	return n.Window("window_max", x, two(3), core.ConvSpec{Strides: two(1), Dilations: two(1), Lo: two(1), Hi: two(1), Groups: 1})
}

// gate scales channels by what is computed from their sums.
func (n network) gate(x *ir.Value) *ir.Value {
	s := core.Shape(x)
	sum := n.Mul(n.Reduce("reduce_sum", x, true, 2, 3), n.Like(x, 0.02))
	g := n.Tanh(n.conv(n.Relu(n.conv(sum, 8, 1, 1, 1)), s[1], 1, 1, 1))
	return n.Mul(x, n.BroadcastTo(g, s...))
}

// TestPiecesMoveNothing holds that networks whose channels are joined, cut and
// shuffled by other numbers than blocks have are right, and that nothing is
// copied in them but their input and output.
func TestPiecesMoveNothing(t *testing.T) {
	for name, build := range map[string]func(n network, x *ir.Value) *ir.Value{
		"shufflenet": func(n network, x *ir.Value) *ir.Value {
			for range 4 {
				y := n.conv(n.Relu(n.conv(n.SliceAxis(x, 1, 29, 29), 29, 1, 1, 1)), 29, 3, 1, 0)
				x = n.shuffle(n.Concat(1, n.SliceAxis(x, 1, 0, 29), n.Relu(n.conv(y, 29, 1, 1, 1))), 2)
			}
			return n.conv(n.conv(x, 58, 3, 2, 0), 20, 1, 1, 1)
		},
		"ghost": func(n network, x *ir.Value) *ir.Value {
			ghost := func(x *ir.Value, oc int) *ir.Value {
				y := n.conv(x, oc/2, 1, 1, 1)
				return n.Concat(1, y, n.conv(y, oc/2, 3, 1, 0))
			}
			for range 2 {
				x = n.Add(x, ghost(n.Relu(ghost(x, 72)), 58))
			}
			return n.conv(n.conv(x, 58, 3, 2, 0), 20, 1, 1, 1)
		},
		"groups": func(n network, x *ir.Value) *ir.Value {
			for range 3 {
				y := n.shuffle(n.Relu(n.conv(x, 56, 1, 1, 2)), 2)
				x = n.Relu(n.Add(x, n.conv(n.conv(y, 56, 3, 1, 0), 58, 1, 1, 2)))
			}
			return n.conv(n.conv(x, 58, 3, 2, 0), 20, 1, 1, 1)
		},
		"halves": func(n network, x *ir.Value) *ir.Value {
			a, b := n.conv(x, 24, 1, 1, 1), n.conv(x, 24, 1, 1, 1)
			a = n.Add(a, n.conv(n.Relu(n.conv(a, 24, 1, 1, 1)), 24, 3, 1, 1))
			return n.conv(n.max(n.Concat(1, a, b)), 40, 1, 1, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := network{core.NewBuilder("g"), rand.New(rand.NewPCG(1, 1))}
			x := n.Input("x", tensor.F32, 1, 20, 9, 6)
			n.Output(build(n, n.Relu(n.conv(x, 58, 1, 1, 1))))
			for _, o := range []lower.Options{{Lanes: 4, Regs: 16}, {Lanes: 8, Regs: 16}, {Lanes: 16, Regs: 32}} {
				p := lowered(t, n.G, o)
				moved := 0
				for _, f := range families(p) {
					if f == "copy" || f == "concat" {
						moved++
					}
				}
				if moved > 2 && o.Lanes == 16 { // with fewer, planes need not end with a cache line
					t.Errorf("%d lanes: %d copies in %v", o.Lanes, moved, families(p))
				}
			}
		})
	}
}

// TestPiecesOfAnything holds that random networks of everything that joins,
// cuts, shuffles and works by channels are right, whatever of it can be done in
// pieces.
func TestPiecesOfAnything(t *testing.T) {
	joined := 0
	seeds := uint64(40)
	if testing.Short() {
		seeds = 12
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			n := network{core.NewBuilder("g"), rand.New(rand.NewPCG(seed, 5))}
			n.Builder.Output(n.random(n.Input("x", tensor.F32, 1, 12, 5, 4)))
			for _, o := range []lower.Options{{Lanes: 4, Regs: 16}, {Lanes: 16, Regs: 32}} {
				p := lowered(t, n.G, o)
				if o.Lanes == 16 && !slices.Contains(families(p), "concat") {
					joined++
				}
			}
		})
	}
	if joined < 2 {
		t.Errorf("%d networks join without a copy", joined)
	}
}

// random is a network of random layers on values of one size.
func (n network) random(x *ir.Value) *ir.Value {
	pick := func(l ...int) int { return l[n.r.IntN(len(l))] }
	all := []*ir.Value{n.Relu(n.conv(x, pick(20, 24, 36, 40), 1, 1, 1))}
	for range 5 + n.r.IntN(12) {
		x := all[len(all)-1-n.r.IntN(min(len(all), 3))]
		c := core.Shape(x)[1]
		var y *ir.Value
		switch n.r.IntN(15) {
		case 0, 1, 2:
			y = n.conv(x, pick(12, 14, 18, 24, 32), 1, 1, 1)
		case 3:
			y = n.Relu(n.conv(x, c, 3, 1, 0))
		case 4:
			y = n.conv(x, pick(13, 20), 3, 1, 1)
		case 5, 6:
			z := all[n.r.IntN(len(all))]
			if y = n.Concat(1, z, x); core.Shape(y)[1] > 120 {
				y = n.conv(y, 24, 1, 1, 1)
			}
		case 7:
			if y = x; c%2 == 0 {
				y = n.shuffle(x, 2)
			}
		case 8:
			from := pick(0, c/2, 5)
			y = n.SliceAxis(x, 1, from, min(c-from, max(c/2, 6)))
		case 9:
			y = n.Mul(x, n.perChannel(x))
			for _, z := range all {
				if core.Shape(z)[1] == c {
					y = n.Add(y, z)
					break
				}
			}
		case 10:
			y = n.max(x)
		case 11:
			y = n.gate(x)
		case 12:
			y = n.Tanh(x)
		default:
			g := pick(2, 3, 4, 5)
			if y = n.Relu(x); c%g == 0 {
				y = n.conv(x, g*pick(3, 8, 11, 16, 20), 1, 1, g)
				y = n.shuffle(y, pick(1, g))
			}
		}
		all = append(all, y)
	}
	last := all[len(all)-1]
	if n.r.IntN(2) == 0 { // a value in the middle is wanted, too
		n.Output(n.Neg(all[len(all)/2]))
	}
	return n.conv(last, 17, 1, 1, 1)
}
