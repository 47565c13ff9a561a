package passes_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/pass"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/golden"
	"github.com/lathe-ml/lathe/passes"
)

// TestSimplifyGoldens runs each testdata/passes/simplify/*.txtar. The first
// line of a file is the rules that run (or "all") and its flags: -opset, -ir,
// -stop-after, -max-growth, -dim. Beside the text, the graphs themselves are
// compared: the evaluator must give the same for both.
func TestSimplifyGoldens(t *testing.T) {
	covered := map[string]bool{}
	golden.Run(t, filepath.Join("..", "testdata", "passes", "simplify"), func(t *testing.T, c *golden.Case) {
		args := c.Command()
		fs := flag.NewFlagSet("case", flag.ContinueOnError)
		opset := fs.Int("opset", 21, "")
		irVersion := fs.Int64("ir", 10, "")
		stop := fs.Int("stop-after", 0, "")
		growth := fs.Int("max-growth", 0, "")
		batch := fs.Int("dim-N", 0, "")
		if err := fs.Parse(args[1:]); err != nil {
			t.Fatal(err)
		}
		o := passes.Options{Run: pass.Options{StopAfter: *stop}}
		o.Simplify.MaxGrowth = *growth
		if *batch > 0 {
			o.Simplify.Dims = map[string]int{"N": *batch}
		}
		if args[0] != "all" {
			o.Simplify.Only = strings.Split(args[0], ",")
		}
		m := parsed(t, c.Input("in"), *opset, *irVersion)
		rep, err := passes.Simplify(context.Background(), m, o)
		if err != nil {
			c.Want("error", err.Error())
			return
		}
		var b strings.Builder
		for _, e := range rep.Edits {
			covered[e.Rule] = true
			fmt.Fprintf(&b, "%s: %s (%s): %s\n", e.Rule, e.Node, e.Op, e.Why)
		}
		c.Want("out", ir.Print(m.Graph))
		c.Want("report", b.String())
		sameResults(t, parsed(t, c.Input("in"), *opset, *irVersion), m, *batch)
	})
	if t.Failed() {
		return
	}
	names, _ := passes.SimplifyRules()
	for _, n := range names {
		if !covered[n] {
			t.Errorf("no golden shows rule %s", n)
		}
	}
}

func parsed(t *testing.T, text string, opset int, irVersion int64) *onnxfile.Model {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	m := onnxfile.New(g, int64(opset))
	m.IRVersion = irVersion
	return m
}

// sameResults feeds both models the same random inputs; free dimensions are 3.
func sameResults(t *testing.T, a, b *onnxfile.Model, free int) {
	t.Helper()
	if free == 0 {
		free = 3
	}
	rng := rand.New(rand.NewPCG(7, 7))
	var in []*ir.Data
	for _, v := range a.FeedInputs() {
		var shape []int
		for _, d := range v.Type.Shape {
			if d.N < 0 {
				d.N = free
			}
			shape = append(shape, d.N)
		}
		x := tensor.New(v.Type.DType, shape...)
		for i := range x.Len() {
			x.SetFloat(i, rng.NormFloat64())
		}
		in = append(in, ir.TensorData(x))
	}
	want, err := onnx.Eval(a.Graph, a.OpsetTable(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := onnx.Eval(b.Graph, b.OpsetTable(), in, nil)
	if err != nil {
		t.Fatalf("the result does not run: %v", err)
	}
	if err := conformance.Compare(got, want, conformance.Tolerance{RTol: 1e-5, ATol: 1e-6}, false); err != nil {
		t.Error(err)
	}
	for i := range want {
		if a.Graph.Outputs[i].Name != b.Graph.Outputs[i].Name {
			t.Errorf("output %d is called %q, was %q", i, b.Graph.Outputs[i].Name, a.Graph.Outputs[i].Name)
		}
	}
}
