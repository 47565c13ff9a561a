package onnx

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func parsedGraph(t *testing.T, text string) *ir.Graph {
	t.Helper()
	g, err := ir.Parse("onnx graph \"g\" {\n" + text + "\n}")
	if err != nil {
		t.Fatalf("%v in\n%.2000s", err, text)
	}
	return g
}

// TestOpsetsBeyondTheTable holds that an opset which the rows do not describe is
// refused by expansion and evaluation, by name and with a way out, and that the
// newest described one is not.
func TestOpsetsBeyondTheTable(t *testing.T) {
	abs := "input %x: f32[2]\n%y: f32[2] = Abs(%x)\noutput %y"
	scaler := "input %x: f32[2]\n%y: f32[2] = Scaler(%x) {offset = floats[0, 0], scale = floats[1, 1]} domain \"ai.onnx.ml\"\noutput %y"
	branch := "input %x: f32[2]\ninit %c = bool[]{1}\n%y: f32[2] = If(%c) {then_branch = onnx graph \"a\" {\n%p: f32[2] = Abs(%x)\noutput %p\n}, else_branch = onnx graph \"b\" {\n%q: f32[2] = Abs(%x)\noutput %q\n}}\noutput %y"
	for _, c := range []struct {
		text    string
		opsets  map[string]int
		refused string
	}{
		{abs, map[string]int{"": 28}, ""},
		{abs, map[string]int{"": 29}, "opset 29 of domain ai.onnx is newer than 28"},
		{abs, map[string]int{"": 1 << 40}, "is newer than 28"},
		{abs, map[string]int{"ai.onnx": 29}, "is newer than 28"},
		{abs, map[string]int{"": 28, "ai.onnx.ml": 99}, ""}, // nothing of that domain is used
		{scaler, map[string]int{"": 17, "ai.onnx.ml": 5}, ""},
		{scaler, map[string]int{"": 17, "ai.onnx.ml": 6}, "opset 6 of domain ai.onnx.ml is newer than 5"},
		{branch, map[string]int{"": 29}, "is newer than 28"},
		{abs, map[string]int{}, "does not exist in opset 0"},
		{abs, nil, "does not exist in opset 0"},
	} {
		g := parsedGraph(t, c.text)
		_, xerr := Expand(g, Options{Opsets: c.opsets})
		_, eerr := Eval(g, c.opsets, []*ir.Data{ir.TensorData(tensor.Of([]float32{-1, 2}, 2))}, nil)
		for what, err := range map[string]error{"Expand": xerr, "Eval": eerr} {
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("%s, %v: %v", what, c.opsets, err)
			case c.refused != "" && (fault.KindOf(err) != fault.Unsupported || !strings.Contains(err.Error(), c.refused)):
				t.Errorf("%s, %v: %v, want %s", what, c.opsets, err, c.refused)
			case strings.Contains(c.refused, "newer") && !strings.Contains(fault.HintOf(err), "export the model for opset"):
				t.Errorf("%s, %v: hint %q", what, c.opsets, fault.HintOf(err))
			}
		}
	}
}

// loops nests loops of n rounds each.
func loops(depth int, n int64) string {
	text := "%r0: f32[1] = Abs(%x)\noutput %c0\noutput %r0"
	for d := range depth {
		head := fmt.Sprintf("input %%i%d: i64[]\ninput %%c%d: bool[]\ninput %%a%d: f32[1]\n", d, d, d)
		if d == 0 {
			text = head + "%r0: f32[1] = Add(%a0, %x)\n%c0o: bool[] = Identity(%c0)\noutput %c0o\noutput %r0"
			continue
		}
		text = head + fmt.Sprintf("%%r%d: f32[1] = Loop(%%n, _, %%a%d) {body = onnx graph \"b%d\" {\n%s\n}}\n%%c%do: bool[] = Identity(%%c%d)\noutput %%c%do\noutput %%r%d", d, d, d, text, d, d, d, d)
	}
	return fmt.Sprintf("input %%x: f32[1]\ninit %%n = i64[]{%d}\n%%y: f32[1] = Loop(%%n, _, %%x) {body = onnx graph \"top\" {\n%s\n}}\noutput %%y", n, text)
}

// TestBombs expands small graphs that ask for absurd amounts: each is refused
// with a class, or stays symbolic; none takes memory or time.
func TestBombs(t *testing.T) {
	const huge = "34359738368" // 2^35
	rec := "input %x: f32[1]\ninit %s = i64[1]{" + huge + "}\n"
	deep := "%y: f32[1] = Abs(%x)\noutput %y"
	for d := range 40 {
		deep = fmt.Sprintf("%%z%d: f32[1] = If(%%c) {then_branch = onnx graph \"a\" {\n%s\n}, else_branch = onnx graph \"b\" {\n%%e%d: f32[1] = Neg(%%x)\noutput %%e%d\n}}\noutput %%z%d", d, deep, d, d, d)
	}
	for _, c := range []struct {
		name, text string
		kind       fault.Kind // of Expand; Internal: it succeeds
	}{
		{"range", "init %a = i64[]{0}\ninit %b = i64[]{" + huge + "}\ninit %d = i64[]{1}\n%y: i64[N] = Range(%a, %b, %d)\noutput %y", fault.BadModel},
		{"range, kept as a formula", "init %a = i64[]{0}\ninit %b = i64[]{900000000}\ninit %d = i64[]{1}\n%y: i64[N] = Range(%a, %b, %d)\noutput %y", fault.Internal},
		{"float range, kept as a formula", "init %a = f32[]{0}\ninit %b = f32[]{900000000}\ninit %d = f32[]{1}\n%y: f32[N] = Range(%a, %b, %d)\noutput %y", fault.Internal},
		{"range that overflows", "init %a = i64[]{-9223372036854775808}\ninit %b = i64[]{9223372036854775807}\ninit %d = i64[]{1}\n%y: i64[N] = Range(%a, %b, %d)\noutput %y", fault.BadModel},
		{"constant of shape", rec + "%y: f32[N] = ConstantOfShape(%s)\noutput %y", fault.Internal},
		{"constant of shape, beyond all", "init %s = i64[2]{" + huge + ", " + huge + "}\n%y: f32[NxM] = ConstantOfShape(%s)\noutput %y", fault.BadModel},
		{"negative shape", "init %s = i64[1]{-1}\n%y: f32[N] = ConstantOfShape(%s)\noutput %y", fault.BadModel},
		{"expand", rec + "%y: f32[N] = Expand(%x, %s)\noutput %y", fault.Internal},
		{"tile", rec + "%y: f32[N] = Tile(%x, %s)\noutput %y", fault.Internal},
		{"tile of a constant", "init %x = f32[2]{1, 2}\ninit %s = i64[1]{" + huge + "}\n%y: f32[N] = Tile(%x, %s)\noutput %y", fault.Internal},
		{"pad", "input %x: f32[1]\ninit %s = i64[2]{0, " + huge + "}\n%y: f32[N] = Pad(%x, %s)\noutput %y", fault.Internal},
		{"one hot", "input %x: i64[4]\ninit %d = i64[]{" + huge + "}\ninit %v = f32[2]{0, 1}\n%y: f32[NxM] = OneHot(%x, %d, %v)\noutput %y", fault.Internal},
		{"nonzero of much", rec + "%k: f32[N] = ConstantOfShape(%s)\n%y: i64[1xN] = NonZero(%k)\noutput %y", fault.Unsupported},
		{"sum of a made shape", rec + "%k: i64[N] = ConstantOfShape(%s) {value = i64[1]{1}}\n%q: i64[1] = ReduceSum(%k)\n%y: f32[N] = Expand(%x, %q)\noutput %y", fault.Unsupported},
		{"bernoulli", rec + "%k: f32[N] = Expand(%x, %s)\n%y: f32[N] = Bernoulli(%k)\noutput %y", fault.Unsupported},
		{"random", "%y: f32[N] = RandomNormal() {shape = [1048576, 32768]}\noutput %y", fault.Unsupported},
		{"resize", "input %x: f32[1x1x2x2]\ninit %k = f32[4]{1, 1, 100000, 100000}\n%y: f32[1x1xHxW] = Resize(%x, _, %k)\noutput %y", fault.Internal},
		{"window", "init %s = i64[]{" + huge + "}\n%y: f32[N] = HannWindow(%s)\noutput %y", fault.BadModel},
		{"loop of 2^60 rounds", loops(1, 1<<60), fault.Unsupported},
		{"loops of 4000 rounds in each other", loops(5, 4000), fault.Unsupported},
		{"loop that never ends", "input %x: f32[1]\ninit %c = bool[]{1}\n%y: f32[1] = Loop(_, %c, %x) {body = onnx graph \"b\" {\ninput %i: i64[]\ninput %d: bool[]\ninput %a: f32[1]\n%o: bool[] = Identity(%d)\n%r: f32[1] = Add(%a, %x)\noutput %o\noutput %r\n}}\noutput %y", fault.Unsupported},
		{"deep branches", "input %x: f32[1]\ninput %c: bool[]\n" + strings.Replace(deep, "%z39", "%y", 2), fault.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := parsedGraph(t, c.text)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Expand(g, Options{Opsets: map[string]int{"": 18}})
			runtime.ReadMemStats(&after)
			switch {
			case c.kind == fault.Internal && err != nil:
				t.Error(err)
			case c.kind != fault.Internal && fault.KindOf(err) != c.kind:
				t.Errorf("%v: %v, want %v", fault.KindOf(err), err, c.kind)
			}
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 2048 {
				t.Errorf("%d MiB were allocated", mb)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("the message has %d characters", len(err.Error()))
			}
			t.Logf("%v, %d MiB: %.200v", time.Since(start).Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20, err)
		})
	}
}

// TestRangeSteps holds the count of elements at the ends of int64.
func TestRangeSteps(t *testing.T) {
	const lo, hi = math.MinInt64, math.MaxInt64
	for _, c := range []struct {
		start, limit, delta int64
		want                float64
	}{
		{0, 5, 1, 5}, {0, 5, 2, 3}, {5, 0, -2, 3}, {5, 0, 1, 0}, {0, 5, -1, 0}, {3, 3, 1, 0}, {0, 6, 3, 2}, {-5, 5, 5, 2}, {6, 0, -3, 2},
		{lo, hi, hi, 3}, {lo, hi, 1, 18446744073709551615}, {hi, lo, -1, 18446744073709551615}, {hi, lo, lo, 2}, {lo, lo + 4, 2, 2}, {0, 1, lo, 0}, {0, -1, lo, 1},
	} {
		if got := steps(c.start, c.limit, c.delta); got != c.want {
			t.Errorf("%d to %d by %d: %g, want %g", c.start, c.limit, c.delta, got, c.want)
		}
	}
}
