package randomize

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

const model = `onnx graph "m" {
  input %x: f32[1x64x8x8]
  init %ws = i64[4]{32, 64, 3, 3}
  init %vs = i64[1]{32}
  init %axes = i64[2]{1, 2}
  init %half = f32[]{0.5}
  %w = ConstantOfShape(%ws) {value = f32[1]{0.02}}
  %b = ConstantOfShape(%vs) {value = f32[1]{0.02}}
  %var = ConstantOfShape(%vs) {value = f32[1]{0.02}}
  %s = ConstantOfShape(%vs) {value = f32[1]{0.02}}
  %s3 = Unsqueeze(%s, %axes)
  %y = Conv(%x, %w, %b)
  %n = BatchNormalization(%y, %b, %b, %b, %var)
  %m = Mul(%n, %s3)
  %o: f32[1x32x6x6] = Mul(%m, %half)
  output %o
}`

func parse(t *testing.T) *ir.Graph {
	t.Helper()
	g, err := ir.Parse(model)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func find(g *ir.Graph, name string) *tensor.Tensor {
	for _, v := range g.Inits {
		if v.Name == name {
			return v.Const
		}
	}
	return nil
}

func moments(x *tensor.Tensor) (mean, std float64) {
	for _, v := range x.Floats() {
		mean += v / float64(x.Len())
	}
	for _, v := range x.Floats() {
		std += (v - mean) * (v - mean) / float64(x.Len())
	}
	return mean, math.Sqrt(std)
}

func TestWeights(t *testing.T) {
	g := parse(t)
	rep, err := Weights(g, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Report{Weights: 1, Vectors: 3, Kept: 1, Values: 32*64*9 + 3*32}); rep != want {
		t.Errorf("report %+v, want %+v", rep, want)
	}
	if err := ir.Verify(g); err != nil {
		t.Error(err)
	}
	// He: sqrt(2/(64·9)) = 0.058926; 18,432 draws have a standard error of
	// 0.5 % of that, 5 of them are allowed.
	if mean, std := moments(find(g, "w")); math.Abs(std-0.058926) > 5*0.005*0.058926 || math.Abs(mean) > 5*0.058926/math.Sqrt(18432) {
		t.Errorf("weights have mean %g, deviation %g", mean, std)
	}
	// Through the Unsqueeze a factor is seen: around 1.
	if mean, _ := moments(find(g, "s")); math.Abs(mean-1) > 5*0.1/math.Sqrt(32) {
		t.Errorf("factors have mean %g", mean)
	}
	for _, v := range find(g, "var").Floats() {
		if v <= 0 {
			t.Errorf("variance %g", v)
		}
	}
	if find(g, "ws") != nil || find(g, "axes") == nil || find(g, "half").Float(0) != 0.5 {
		t.Error("constants that are no weights: unread shapes go, the rest stays")
	}
}

func TestSeeds(t *testing.T) {
	a, b, c := parse(t), parse(t), parse(t)
	for _, x := range []struct {
		g    *ir.Graph
		seed uint64
	}{{a, 1}, {b, 1}, {c, 2}} {
		if _, err := Weights(x.g, Options{Seed: x.seed, InitsAreInputs: true}); err != nil {
			t.Fatal(err)
		}
	}
	if !tensor.Equal(find(a, "w"), find(b, "w")) || tensor.Equal(find(a, "w"), find(c, "w")) {
		t.Error("the same seed must give the same weights, another one others")
	}
	if len(a.Inputs) != 1+4 {
		t.Errorf("%d inputs: new initializers belong among them before IR version 4", len(a.Inputs))
	}
}
