package cpu_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
)

// draws are the inputs that bounds are held on. What they assume is that the
// terms of a sum do not cancel beyond what chance does, since the weights are
// of either sign whatever the inputs are.
var draws = []struct {
	name string
	draw func(r *rand.Rand) float64
}{
	{"normal", (*rand.Rand).NormFloat64},
	{"uniform", (*rand.Rand).Float64},
	{"an offset with noise", func(r *rand.Rand) float64 { return 1 + r.NormFloat64()/10 }},
	{"all alike", func(*rand.Rand) float64 { return 0.1 }},
	{"many orders of magnitude", func(r *rand.Rand) float64 { return r.NormFloat64() * math.Exp(3*r.NormFloat64()) }},
}

func drawn(r *rand.Rand, draw func(*rand.Rand) float64, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, draw(r))
	}
	return t
}

// weights keep the size of values from layer to layer.
func weights(r *rand.Rand, terms int, shape ...int) *tensor.Tensor {
	return drawn(r, func(r *rand.Rand) float64 { return r.NormFloat64() * math.Sqrt(2/float64(terms)) }, shape...)
}

func conv(b *core.Builder, x *ir.Value, w *tensor.Tensor, stride, groups int) *ir.Value {
	h, v := w.Shape[2]/2, w.Shape[3]/2
	return b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{stride, stride}, Dilations: []int{1, 1}, Lo: []int{h, v}, Hi: []int{h, v}, Groups: groups})
}

// contractions is a graph of contractions of random shapes, each on an input of
// its own.
func contractions(r *rand.Rand) *ir.Graph {
	b := core.NewBuilder("bounds")
	for i := range 10 {
		ic, oc, k := 16*(1+r.IntN(4)), 8+r.IntN(40), []int{1, 3, 3, 3, 5}[r.IntN(5)]
		x := b.Input(fmt.Sprintf("x%d", i), tensor.F32, 1, ic, 6+r.IntN(14), 6+r.IntN(14))
		b.Output(conv(b, x, weights(r, ic*k*k, oc, ic, k, k), 1+r.IntN(5)/4, 1))
	}
	x := b.Input("depthwise", tensor.F32, 1, 32, 9, 11)
	b.Output(conv(b, x, weights(r, 9, 32, 1, 3, 3), 1, 32))
	b.Output(conv(b, b.Input("planar", tensor.F32, 1, 3, 19, 17), weights(r, 27, 24, 3, 3, 3), 2, 1))
	for i := range 5 {
		m, k, n := 1+r.IntN(9), 1<<(3+3*i)+r.IntN(7), 16+r.IntN(60) // up to 32 768 terms
		x := b.Input(fmt.Sprintf("m%d", i), tensor.F32, m, k)
		b.Output(b.MatMul(x, b.Const(weights(r, k, k, n)), tensor.F32))
	}
	b.Output(b.Reduce("reduce_sum", b.Input("sum", tensor.F32, 1, 32, 40, 50), false, 2, 3))
	b.Output(b.Reduce("reduce_sum", b.Input("row", tensor.F32, 3, 5000), false, 1))
	for _, c := range []struct{ ic, oc, k, stride, groups int }{{40, 24, 2, 1, 1}, {72, 32, 3, 2, 1}, {24, 40, 4, 2, 1}, {32, 16, 5, 2, 1}, {64, 32, 3, 1, 2}, {32, 96, 3, 2, 2}} {
		x := b.Input(fmt.Sprintf("%dx%d stride %d groups %d", c.k, c.k, c.stride, c.groups), tensor.F32, 1, c.ic, 9, 11)
		b.Output(conv(b, x, weights(r, c.ic/c.groups*c.k*c.k, c.oc, c.ic/c.groups, c.k, c.k), c.stride, c.groups))
	}
	return b.G
}

func opened(t *testing.T, p *program.Program, traits backend.Traits, cache string) backend.Session {
	t.Helper()
	dir := t.TempDir()
	if err := cpu.Build(t.Context(), p, dir, backend.Options{Name: "m", Traits: traits, Threads: 1, CacheDir: cache}); err != nil {
		t.Fatal(err)
	}
	s, err := cpu.Open(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reference gives the float64 values of a graph's outputs.
func reference(t *testing.T, g *ir.Graph, in []*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	twin, err := wide.Graph(g, g.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	exact := make([]*tensor.Tensor, len(in))
	for i, x := range in {
		exact[i] = tensor.Convert(x, tensor.F64)
	}
	want, err := core.EvalGraph(twin, exact)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// able are the precisions that a target does not refuse.
func able(t *testing.T, g *ir.Graph, traits backend.Traits) (list []precision.Info) {
	t.Helper()
	for _, m := range precision.Modes {
		switch _, err := compiler.Program(g, traits, compiler.Options{Precision: m.Mode}); {
		case err == nil:
			list = append(list, m)
		case fault.Is(err, fault.Unsupported):
			t.Logf("%s: %v", m.Mode, err)
		default:
			t.Fatal(err)
		}
	}
	return list
}

// ways are programs in which every form that a precision has of any site is
// used once.
func ways(t *testing.T, g *ir.Graph, traits backend.Traits, mode precision.Mode) (all []*program.Program) {
	t.Helper()
	lowered := func(o compiler.Options) *program.Program {
		o.Precision = mode
		p, err := compiler.Program(g, traits, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := lowered(compiler.Options{Explore: true})
	forms := map[string][]string{}
	most := 1
	for _, s := range first.Sites {
		forms[s.Key] = []string{s.Chosen.Form}
		for _, c := range s.Space {
			if !slices.Contains(forms[s.Key], c.Form) {
				forms[s.Key] = append(forms[s.Key], c.Form)
			}
		}
		most = max(most, len(forms[s.Key]))
	}
	for i := range most {
		all = append(all, lowered(compiler.Options{Schedules: func(key string) (schedule.Choice, bool) {
			f := forms[key]
			if len(f) == 0 {
				return schedule.Choice{}, false
			}
			return schedule.Choice{Form: f[i%len(f)]}, true
		}}))
	}
	return all
}

// TestBounds holds that every form that a precision allows stays within the
// bound that the precision states, on random contractions and inputs of several
// kinds.
func TestBounds(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	traits, err := cpu.Target(*cpuName)
	if err != nil {
		t.Fatal(err)
	}
	for mode, forms := range bounds(t, contractions(rand.New(rand.NewPCG(7, 1))), traits, precision.Modes) {
		t.Logf("%s: largest errors by form %v", mode, forms)
	}
}

// bounds holds the precisions' bounds on the outputs of a graph in every form,
// and gives the largest errors by precision and form.
func bounds(t *testing.T, g *ir.Graph, traits backend.Traits, modes []precision.Info) map[string]map[string]float64 {
	t.Helper()
	cache := t.TempDir()
	all := map[string]map[string]float64{}
	type data struct{ in, want []*tensor.Tensor }
	var sets []data
	for _, d := range draws {
		r := rand.New(rand.NewPCG(8, 1))
		var in []*tensor.Tensor
		for _, v := range g.Inputs {
			in = append(in, drawn(r, d.draw, v.Static()...))
		}
		sets = append(sets, data{in, reference(t, g, in)})
	}
	for _, mode := range able(t, g, traits) {
		if !slices.Contains(modes, mode) {
			continue
		}
		worst := map[string]float64{}
		for _, p := range ways(t, g, traits, mode.Mode) {
			s := opened(t, p, traits, cache)
			made := map[string]string{}
			for _, st := range p.Steps {
				for _, x := range p.Sites {
					if x.Key == st.Site {
						made[st.Label] = x.Chosen.Form
					}
				}
			}
			for k, d := range sets {
				out := backend.NewOutputs(s)
				if err := s.Run(d.in, out); err != nil {
					t.Fatal(err)
				}
				for i := range out {
					name := p.Outputs[i].Name
					e := wide.Of(out[i], d.want[i])
					worst[made[name]] = max(worst[made[name]], e.RMS)
					if !e.Within(mode.Bound) {
						t.Errorf("%s, %s inputs: %s of %s in form %q has the error %.2g, more than %.2g", mode.Mode, draws[k].name, g.Outputs[i].Def.Op,
							tensor.ShapeString(g.Outputs[i].Def.Inputs[0].Static()), made[name], e.RMS, mode.Bound)
					}
				}
			}
		}
		all[string(mode.Mode)] = worst
	}
	return all
}

// TestBoundsOfDeepStacks holds that the errors of 32 layers add up as those of
// independent roundings do: the whole is within the root of 32 of one bound, as
// often as the layers amplify noise.
func TestBoundsOfDeepStacks(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	traits, err := cpu.Target(*cpuName)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 1))
	const layers = 32
	b := core.NewBuilder("deep")
	x := b.Input("x", tensor.F32, 1, 16, 14, 14)
	y := x
	for i := range layers {
		z := b.Relu(conv(b, y, weights(r, 9*16, 16, 16, 3, 3), 1, 1))
		if y = z; i%2 == 1 {
			y = b.Mul(b.Add(z, y), b.Like(z, 0.5))
		}
	}
	b.Output(y)
	in := []*tensor.Tensor{drawn(r, (*rand.Rand).NormFloat64, x.Static()...)}
	want := reference(t, b.G, in)
	// How the network itself amplifies noise, in float64.
	const noise = 1e-3
	moved := in[0].Clone()
	for i := range moved.Len() {
		moved.SetFloat(i, moved.Float(i)*(1+noise*r.NormFloat64()))
	}
	amplifies := max(1, wide.Of(reference(t, b.G, []*tensor.Tensor{moved})[0], want[0]).RMS/noise)
	cache := t.TempDir()
	for _, mode := range able(t, b.G, traits) {
		p, err := compiler.Program(b.G, traits, compiler.Options{Precision: mode.Mode})
		if err != nil {
			t.Fatal(err)
		}
		s := opened(t, p, traits, cache)
		out := backend.NewOutputs(s)
		if err := s.Run(in, out); err != nil {
			t.Fatal(err)
		}
		e := wide.Of(out[0], want[0])
		t.Logf("%s: %.2g after %d layers, which amplify noise %.2g times", mode.Mode, e.RMS, layers, amplifies)
		if !e.Within(amplifies * mode.Bound * math.Sqrt(layers)) {
			t.Errorf("%s: the error after %d layers is %.2g, more than √%d of %.2g, %.2g times", mode.Mode, layers, e.RMS, layers, mode.Bound, amplifies)
		}
	}
}
