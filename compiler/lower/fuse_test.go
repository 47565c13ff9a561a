package lower_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// wide are the traits of a CPU with 16 lanes.
var wide = lower.Options{Lanes: 16, Regs: 32}

// values are seeded normal numbers, small whole ones for integers.
func values(r *rand.Rand, d tensor.DType, shape ...int) *tensor.Tensor {
	t := tensor.New(d, shape...)
	for i := range t.Len() {
		if d.IsFloat() {
			t.SetFloat(i, r.NormFloat64())
		} else {
			t.SetInt(i, int64(r.IntN(3)))
		}
	}
	return t
}

// lowered lowers a graph and holds that the kernels, interpreted, give what the
// reference evaluator gives.
func lowered(t *testing.T, g *ir.Graph, o lower.Options) *program.Program {
	t.Helper()
	p, err := lower.Lower(g, o)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 8))
	var in []*tensor.Tensor
	for _, v := range g.Inputs {
		in = append(in, values(r, v.DType(), v.Static()...))
	}
	got, want := both(t, g, p, in)
	for k := range want {
		within := 1e-5
		if want[k].DType == tensor.F16 {
			within = 1.0 / 1024 // the evaluator rounds each op to 11 bits, kernels round once
		}
		for i := range want[k].Len() {
			x, y := got[k].Float(i), want[k].Float(i)
			if x != y && !(math.Abs(x-y) <= within*(1+math.Abs(y))) && !(math.IsNaN(x) && math.IsNaN(y)) {
				t.Fatalf("output %d, element %d: kernels give %v, the evaluator %v", k, i, x, y)
			}
		}
	}
	return p
}

// families lists the kernels that the steps call.
func families(p *program.Program) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, s.Kernel.Family)
	}
	return out
}

// TestFusion holds which ops become one kernel.
func TestFusion(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 8))
	conv := func(b *core.Builder, x *ir.Value, oc int, kernel, pad int) *ir.Value {
		w := b.Const(values(r, tensor.F32, oc, x.Static()[1], kernel, kernel))
		return b.Conv(x, w, core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: 1})
	}
	perChannel := func(b *core.Builder, x *ir.Value) *ir.Value {
		return b.BroadcastTo(b.Const(values(r, tensor.F32, 1, x.Static()[1], 1, 1)), x.Static()...)
	}
	for _, c := range []struct {
		name  string
		build func(b *core.Builder) []*ir.Value
		want  []string
	}{
		{"a row that two outputs want is stored", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 6, 37)
			m := b.Reduce("reduce_max", x, true, 1)
			return []*ir.Value{b.Sub(x, m), m}
		}, []string{"reduce", "pointwise"}},
		{"product, bias and relu", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 5, 48)
			y := b.MatMul(x, b.Const(values(r, tensor.F32, 48, 32)), tensor.F32)
			return []*ir.Value{b.Relu(b.Add(y, b.Const(values(r, tensor.F32, 32))))}
		}, []string{"dot"}},
		{"elementwise chain", func(b *core.Builder) []*ir.Value {
			x, y := b.Input("x", tensor.F32, 4, 9), b.Input("y", tensor.F32, 9)
			return []*ir.Value{b.Tanh(b.Mul(b.Add(x, y), b.Exp(x)))}
		}, []string{"pointwise"}},
		{"movements are read through", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 4, 6)
			y := b.Reshape(b.Transpose(x, 1, 0), 3, 8)
			return []*ir.Value{b.Neg(b.SliceAxis(y, 1, 2, 4))}
		}, []string{"pointwise"}},
		{"a dear value that two read is stored", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 4, 6)
			y := b.Tanh(x)
			return []*ir.Value{b.Exp(y), b.Transpose(y, 1, 0)}
		}, []string{"pointwise", "pointwise", "pointwise"}},
		{"a cheap value that two read is not", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 4, 6)
			y := b.Neg(x)
			return []*ir.Value{b.Exp(y), b.Transpose(y, 1, 0)}
		}, []string{"pointwise", "pointwise"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			for _, v := range c.build(b) {
				b.Output(v)
			}
			if got := families(lowered(t, b.G, wide)); !slices.Equal(got, c.want) {
				t.Errorf("kernels %v, want %v", got, c.want)
			}
		})
	}
	t.Run("convolution, bias and relu", func(t *testing.T) {
		// Between two convolutions, so that the ends of the network are not in
		// the way: the middle is one kernel, whatever its form.
		b := core.NewBuilder("g")
		x := conv(b, b.Input("x", tensor.F32, 1, 3, 12, 12), 32, 1, 0)
		y := conv(b, x, 32, 3, 1)
		y = b.Relu(b.Add(y, perChannel(b, y)))
		b.Output(b.Reduce("reduce_max", conv(b, y, 16, 1, 0), true, 2, 3))
		p := lowered(t, b.G, wide)
		convs := 0
		for _, s := range p.Steps {
			switch f := s.Kernel.Family; {
			case f == "conv" || f == "winograd":
				convs++
			case f == "pointwise":
				t.Errorf("%s is a kernel of its own", s.Label)
			}
		}
		if convs != 3 {
			t.Errorf("kernels %v: want 3 convolutions", families(p))
		}
	})
}

// TestRowsAreFused holds that normalizations are kernels over rows alone:
// nothing between the reductions is stored by a kernel of its own.
func TestRowsAreFused(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 8))
	softmax := func(b *core.Builder, x *ir.Value) *ir.Value {
		e := b.Exp(b.Sub(x, b.Reduce("reduce_max", x, true, 1)))
		return b.Div(e, b.Reduce("reduce_sum", e, true, 1))
	}
	for _, c := range []struct {
		name  string
		build func(b *core.Builder) []*ir.Value
	}{
		{"softmax", func(b *core.Builder) []*ir.Value {
			return []*ir.Value{softmax(b, b.Input("x", tensor.F32, 6, 37))}
		}},
		{"softmax, scaled before and after", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 6, 37)
			return []*ir.Value{b.Mul(softmax(b, b.Mul(x, b.Like(x, 0.5))), b.Like(x, 3))}
		}},
		{"layer normalization", func(b *core.Builder) []*ir.Value {
			x := b.Input("x", tensor.F32, 6, 37)
			n := b.Like(x, 37)
			d := b.Sub(x, b.Div(b.Reduce("reduce_sum", x, true, 1), n))
			v := b.Div(b.Reduce("reduce_sum", b.Mul(d, d), true, 1), n)
			y := b.Div(d, b.Sqrt(b.Add(v, b.Like(x, 1e-5))))
			scale, shift := b.Const(values(r, tensor.F32, 37)), b.Const(values(r, tensor.F32, 37))
			return []*ir.Value{b.Add(b.Mul(y, scale), shift)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			for _, v := range c.build(b) {
				b.Output(v)
			}
			got := families(lowered(t, b.G, wide))
			if len(got) > 1 || slices.ContainsFunc(got, func(f string) bool { return f != "rows" }) {
				t.Errorf("kernels %v", got)
			}
		})
	}
}

// TestEqualKernelsAreOne holds that layers of the same form share their code:
// 12 steps of a recurrence, one kernel.
func TestEqualKernelsAreOne(t *testing.T) {
	b := core.NewBuilder("g")
	r := rand.New(rand.NewPCG(3, 8))
	h := b.Input("h", tensor.F32, 1, 32)
	w := values(r, tensor.F32, 32, 32)
	for i := range w.Len() {
		w.SetFloat(i, w.Float(i)/8) // a contraction: differences in rounding stay small
	}
	for range 12 {
		h = b.Tanh(b.MatMul(h, b.Const(w), tensor.F32))
	}
	b.Output(h)
	p := lowered(t, b.G, wide)
	names := map[string]bool{}
	for _, s := range p.Steps {
		names[s.Kernel.String()] = true
	}
	if len(p.Steps) < 12 || len(p.Kernels) != len(names) || len(p.Kernels) > 2 {
		t.Errorf("%d steps call %d kernels", len(p.Steps), len(p.Kernels))
	}
}

// TestWorkspaceIsReused holds that a deep network needs the memory of a few
// layers: 30 stored values of 64 KB in at most three of them.
func TestWorkspaceIsReused(t *testing.T) {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 128, 128)
	for range 30 {
		x = b.Tanh(b.Add(x, b.Reduce("reduce_max", x, true, 1)))
	}
	b.Output(x)
	p := lowered(t, b.G, wide)
	if limit := 3 * program.Pad(128*128*4); p.Workspace > limit {
		t.Errorf("workspace %d, limit %d", p.Workspace, limit)
	}
}

// TestRefusals holds that what compiled memory does not hold is named.
func TestRefusals(t *testing.T) {
	b := core.NewBuilder("g")
	b.Output(b.Reshape(b.Input("words", tensor.String, 4), 2, 2))
	_, err := lower.Lower(b.G, wide)
	if err == nil || !strings.Contains(err.Error(), `input "words" is tensor(string)`) && !strings.Contains(err.Error(), `input "words" is string`) {
		t.Errorf("got %v", err)
	}
}
