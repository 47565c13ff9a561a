package lower_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// twoConvs is a stack of two convolutions of one structure and a softmax.
func twoConvs(r *rand.Rand) *ir.Graph {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, 16, 12, 12)
	for range 2 {
		w := values(r, tensor.F32, 16, 16, 3, 3)
		x = b.Relu(b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1}))
	}
	y := b.Reduce("reduce_sum", x, false, 2, 3)
	e := b.Exp(b.Sub(y, b.BroadcastTo(b.Reduce("reduce_max", y, true, 1), 1, 16)))
	b.Output(b.Div(e, b.BroadcastTo(b.Reduce("reduce_sum", e, true, 1), 1, 16)))
	return b.G
}

// made are the kernels of the steps that layers are made of.
func made(p *program.Program) (out []string) {
	for _, s := range p.Steps {
		if s.Layer != "" {
			out = append(out, s.Layer+" "+s.Site+"\n"+s.Kernel.String())
		}
	}
	return out
}

// TestWatchChangesNoKernel holds that a program whose layers are looked at has
// the kernels, the forms and the decisions of the one that is measured.
func TestWatchChangesNoKernel(t *testing.T) {
	g := twoConvs(rand.New(rand.NewPCG(3, 4)))
	for _, o := range widths {
		for _, o.Precision = range []precision.Mode{precision.IEEE, precision.F32, precision.Fast} {
			p, err := lower.Lower(g, o)
			if err != nil {
				t.Fatal(err)
			}
			w, err := lower.Watch(g, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(made(p), made(w.Program)) {
				t.Errorf("%d lanes, %s: other kernels when watched", o.Lanes, o.Precision)
			}
			if len(w.Layers) != 4 { // two convolutions, the sum, the softmax
				t.Errorf("%d lanes: %d layers, want 4", o.Lanes, len(w.Layers))
			}
			for _, l := range w.Layers {
				if at, ok := w.Output[l.Root]; !ok || w.Program.Outputs[at].Name != l.Root.Name {
					t.Errorf("layer %s is no output", l.Root.Name)
				}
			}
		}
	}
}

// TestPrecisionOfALayer holds that layers of one structure may differ in
// precision, and then are decisions of their own.
func TestPrecisionOfALayer(t *testing.T) {
	g := twoConvs(rand.New(rand.NewPCG(3, 4)))
	o := lower.Options{Lanes: 16, Regs: 32}
	w, err := lower.Watch(g, o)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.Program.Sites); n != 1 {
		t.Fatalf("%d sites, want one for both convolutions", n)
	}
	o.PrecisionAt = func(layer string) precision.Mode {
		if layer == w.Layers[0].Root.Name {
			return precision.IEEE
		}
		return precision.F32
	}
	p, err := lower.Lower(g, o)
	if err != nil {
		t.Fatal(err)
	}
	var forms []string
	for _, s := range p.Sites {
		forms = append(forms, s.Chosen.Form)
	}
	if !slices.Equal(forms, []string{"direct", "winograd4"}) {
		t.Errorf("forms %v, want the first convolution direct and the second winograd4", forms)
	}
}
