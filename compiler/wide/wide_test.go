package wide_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
)

func twin(t *testing.T, g *ir.Graph, in ...*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	w, err := wide.Graph(g, g.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range w.Inputs {
		in[i] = tensor.Convert(in[i], v.DType())
	}
	out, err := core.EvalGraph(w, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTwinOfASum holds that nothing is rounded to f32 on the way: with
// x = 2²⁴ the f32 sum x+1 is x again, so that (x+1)−x is 0, and 1 in float64.
func TestTwinOfASum(t *testing.T) {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1)
	one := b.Const(tensor.Of([]float32{1}, 1))
	b.Output(b.Sub(b.Add(x, one), x))
	in := tensor.Of([]float32{1 << 24}, 1)
	narrow, err := core.EvalGraph(b.G, []*tensor.Tensor{in})
	if err != nil || narrow[0].Float(0) != 0 {
		t.Fatalf("f32 gives %v, %v: the example shows nothing", narrow, err)
	}
	out := twin(t, b.G, in)
	if out[0].DType != tensor.F64 || out[0].Float(0) != 1 {
		t.Errorf("twin gives %s %g, want float64 1", out[0].DType, out[0].Float(0))
	}
}

// TestTwinAgainstBig compares a product with sums that cancel against exact
// rational arithmetic.
func TestTwinAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const k, n = 300, 7
	b := core.NewBuilder("g")
	w, in := tensor.New(tensor.F32, k, n), tensor.New(tensor.F32, 1, k)
	for i := range w.Len() {
		w.SetFloat(i, r.NormFloat64())
	}
	for i := range k {
		in.SetFloat(i, r.NormFloat64()*math.Exp(4*r.NormFloat64()))
	}
	b.Output(b.MatMul(b.Input("x", tensor.F32, 1, k), b.Const(w), tensor.F32))
	out := twin(t, b.G, in)[0]
	for j := range n {
		sum, size := new(big.Rat), 0.0
		for i := range k {
			p := new(big.Rat).Mul(new(big.Rat).SetFloat64(in.Float(i)), new(big.Rat).SetFloat64(w.Float(i*n+j)))
			sum.Add(sum, p)
			f, _ := p.Float64()
			size += math.Abs(f)
		}
		want, _ := sum.Float64()
		if d := math.Abs(out.Float(j) - want); d > k*size/(1<<52) {
			t.Errorf("column %d: %g instead of %g", j, out.Float(j), want)
		}
	}
}

// TestTwinKeepsWhatTheModelRounds holds that a cast to float16 that the model
// asks for rounds in the twin too, and one of the compiler's does not: 1+2⁻¹³
// is no float16.
func TestTwinKeepsWhatTheModelRounds(t *testing.T) {
	const x = 1 + 1.0/(1<<13)
	for _, c := range []struct {
		keep int
		want float64
	}{{1, 1}, {0, x}} {
		b := core.NewBuilder("g")
		y := b.Node("cast", []*ir.Value{b.Input("x", tensor.F32, 1)}, "to", tensor.F16, "keep", c.keep)
		b.Output(b.Cast(y, tensor.F32))
		if got := twin(t, b.G, tensor.Of([]float32{x}, 1))[0].Float(0); got != c.want {
			t.Errorf("keep=%d: %g, want %g", c.keep, got, c.want)
		}
	}
}

// TestTwinOfBits holds that a model that looks at bits is refused.
func TestTwinOfBits(t *testing.T) {
	b := core.NewBuilder("g")
	b.Output(b.Bitcast(b.Input("x", tensor.F32, 1), tensor.I32))
	if _, err := wide.Graph(b.G, b.G.Outputs); err == nil {
		t.Error("no error")
	}
}

// TestLayersStandAlone holds that each layer is computed from what was recorded
// and not from what the layer before it gives: the recorded value is wrong here
// on purpose.
func TestLayersStandAlone(t *testing.T) {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 4, 8)
	w := tensor.New(tensor.F32, 8, 8)
	for i := range 8 {
		w.SetFloat(9*i, 1) // the unit matrix
	}
	y := b.MatMul(x, b.Const(w), tensor.F32)
	b.Output(b.Add(b.MatMul(b.Add(y, b.Scalar(tensor.F32, 1)), b.Const(w), tensor.F32), y))
	lo, err := lower.Watch(b.G, lower.Options{Lanes: 4, Regs: 16})
	if err != nil {
		t.Fatal(err)
	}
	g, inputs, err := wide.Layers("g", lo.Layers)
	if err != nil {
		t.Fatal(err)
	}
	if len(lo.Layers) < 2 || len(g.Outputs) != len(lo.Layers) || len(inputs) < 2 {
		t.Fatalf("%d layers, %d outputs, %d inputs", len(lo.Layers), len(g.Outputs), len(inputs))
	}
	in := make([]*tensor.Tensor, len(inputs))
	for i, v := range inputs {
		in[i] = tensor.New(tensor.F64, v.Static()...)
		for k := range in[i].Len() {
			in[i].SetFloat(k, float64(10+i)) // value i is 10+i everywhere
		}
	}
	out, err := core.EvalGraph(g, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := out[0].Float(0); got != 10 { // the unit matrix on x
		t.Errorf("first layer gives %g from an input of 10s", got)
	}
	last := out[len(out)-1].Float(0)
	if want := 11.0 + 1 + 11; len(lo.Layers) == 2 && last != want { // (y+1)·1 + y
		t.Errorf("last layer gives %g from a recorded 11, want %g", last, want)
	}
}

// TestDeviation checks the figures by hand: differences 3 and 4 of values 10
// and 0 have a root of mean squares of √12.5, the values have √50.
func TestDeviation(t *testing.T) {
	d := wide.Of(tensor.Of([]float32{13, 4}, 2), tensor.Of([]float64{10, 0}, 2))
	if math.Abs(d.RMS-0.5) > 1e-15 || math.Abs(d.Max-4/math.Sqrt(50)) > 1e-15 || d.Broken != 0 {
		t.Errorf("%+v, want 0.5 and %g", d, 4/math.Sqrt(50))
	}
	inf, nan := math.Inf(1), math.NaN()
	f := float32(1)
	for _, c := range []struct {
		got    float32
		want   float64
		broken int
	}{
		{float32(inf), inf, 0}, {float32(inf), 1e39, 0}, {float32(nan), nan, 0},
		{float32(inf), -inf, 1}, {float32(inf), 1, 1}, {f, nan, 1}, {f, inf, 1}, {float32(nan), 1, 1}, {f, 1, 0},
	} {
		if d := wide.Of(tensor.Of([]float32{c.got}, 1), tensor.Of([]float64{c.want}, 1)); d.Broken != c.broken || d.RMS != 0 {
			t.Errorf("%g for %g: %+v", c.got, c.want, d)
		}
	}
	if d := wide.Of(tensor.Of([]float32{1e-30}, 1), tensor.Of([]float64{0}, 1)); d.RMS != 1 {
		t.Errorf("a value where there is none: %+v", d)
	}
}
