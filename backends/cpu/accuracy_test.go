package cpu_test

import (
	"context"
	"math"
	"runtime"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// scalarBounds are the stated errors of the scalar functions of the runtime, in
// units of the last place of the result, against Go's of float64. RATIONALE.md
// has the same table.
var scalarBounds = []struct {
	name string
	ulp  float64
	want func(float64) float64
}{
	{"exp", 1.5, math.Exp},
	{"log", 0.8, math.Log},
	{"tanh", 2.6, math.Tanh},
	{"erf", 1.2, math.Erf},
	{"sqrt", 0.51, math.Sqrt},
	{"sin", 0.6, math.Sin},
	{"cos", 0.6, math.Cos},
}

// TestScalarAccuracy runs each function over floats of every exponent and sign,
// a prime number of bit patterns apart, at the widest level of this machine and
// at the one without multiply-add. NaN and infinities must be where they belong.
func TestScalarAccuracy(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	const step = 8191
	x := tensor.New(tensor.F32, math.MaxUint32/step+1)
	in := tensor.As[float32](x)
	for i := range in {
		in[i] = math.Float32frombits(uint32(i) * step)
	}
	levels := []string{"native"}
	if runtime.GOARCH == "amd64" {
		levels = append(levels, "x86-64")
	}
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			outs := scalars(t, level, x)
			for k, f := range scalarBounds {
				worst, at := 0.0, float32(0)
				for i, y := range tensor.As[float32](outs[k]) {
					if e := ulps(y, f.want(float64(in[i]))); e > worst {
						worst, at = e, in[i]
					}
				}
				t.Logf("%s: %.3f ulp at %g", f.name, worst, at)
				if worst > f.ulp {
					t.Errorf("%s is off by %.3f units in the last place at %g (%x), %g are stated", f.name, worst, at, math.Float32bits(at), f.ulp)
				}
			}
		})
	}
}

// softmaxBound is the stated error of the exponential of differences to a
// maximum, in units of the last place. RATIONALE.md has the same figure.
const softmaxBound = 4.5

// TestExpOfDifferences runs that function over floats of every exponent up to 0,
// and NaN: each is the only element of its row beside the maximum 0, whose
// exponential is exact.
func TestExpOfDifferences(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	const step = 8191
	var in []float32
	for b := uint64(1) << 31; b < 1<<32; b += step {
		in = append(in, math.Float32frombits(uint32(b)))
	}
	in = append(in, float32(math.Inf(-1)), 0, -103.97, -87.4, -104)
	for len(in)%16 != 0 {
		in = append(in, 0)
	}
	x := tensor.New(tensor.F32, len(in), 2)
	for i, v := range in {
		tensor.As[float32](x)[2*i] = v
	}
	levels := []string{"native"}
	if runtime.GOARCH == "amd64" {
		levels = append(levels, "x86-64-v3", "x86-64")
	}
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			b := core.NewBuilder("differences")
			v := b.Input("x", tensor.F32, x.Shape...)
			b.Output(b.Exp(b.Sub(v, b.Reduce("reduce_max", v, true, 1))))
			out := tensor.As[float32](compiled(t, level, b.G, x)[0])
			worst, at := 0.0, float32(0)
			for i, v := range in {
				if e := ulps(out[2*i], math.Exp(float64(v))); e > worst {
					worst, at = e, v
				}
			}
			t.Logf("%.3f ulp at %g", worst, at)
			if worst > softmaxBound {
				t.Errorf("off by %.3f units in the last place at %g (%x), %g are stated", worst, at, math.Float32bits(at), softmaxBound)
			}
		})
	}
}

// scalars computes every function of the table by compiled code.
func scalars(t *testing.T, level string, x *tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	b := core.NewBuilder("scalars")
	v := b.Input("x", tensor.F32, x.Shape...)
	for _, f := range scalarBounds {
		b.Output(b.Node(f.name, []*ir.Value{v}))
	}
	return compiled(t, level, b.G, x)
}

// compiled runs a graph of one input by compiled code.
func compiled(t *testing.T, level string, g *ir.Graph, x *tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	tr, err := cpu.Target(level)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compiler.Program(g, tr, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := cpu.Build(context.Background(), p, dir, backend.Options{Name: "m", Traits: tr, Threads: 1, CacheDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	s, err := cpu.Open(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := backend.NewOutputs(s)
	if err := s.Run([]*tensor.Tensor{x}, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// ulps is the distance of a result from the exact one in units of the last
// place of a float32; +Inf where one of them is no number or endless and the
// other is not.
func ulps(got float32, want float64) float64 {
	near := float32(want)
	switch {
	case got != got || want != want:
		if got != got && want != want {
			return 0
		}
		return math.Inf(1)
	case math.IsInf(float64(near), 0) || math.IsInf(float64(got), 0):
		if got == near {
			return 0
		}
		return math.Inf(1)
	}
	_, e := math.Frexp(want)
	unit := math.Ldexp(1, max(e-24, -149))
	return math.Abs(float64(got)-want) / unit
}
