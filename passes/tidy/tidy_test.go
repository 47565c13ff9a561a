package tidy

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/golden"
)

// TestGoldens: the first line of a case is "tidy OPSET [RULE,…] [name=n…]".
func TestGoldens(t *testing.T) {
	golden.Run(t, filepath.Join("..", "..", "testdata", "passes", "tidy"), func(t *testing.T, c *golden.Case) {
		cmd := c.Command()
		opset, err := strconv.Atoi(cmd[1])
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Model: onnx.Options{Opsets: map[string]int{"": opset}, Dims: map[string]int{}}}
		for _, word := range cmd[2:] {
			if k, v, ok := strings.Cut(word, "="); ok {
				if o.Model.Dims[k], err = strconv.Atoi(v); err != nil {
					t.Fatal(err)
				}
				continue
			}
			o.Only = strings.Split(word, ",")
		}
		g, err := ir.Parse(c.Input("in"))
		if err != nil {
			t.Fatal(err)
		}
		before, err := ir.Parse(c.Input("in"))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Graph(context.Background(), g, o)
		if err != nil {
			t.Fatal(err)
		}
		c.Want("out", ir.Print(g))
		var b strings.Builder
		for _, e := range rep.Edits {
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		c.Want("report", b.String())
		sameResults(t, before, g, o.Model)
	})
}

// sameResults runs both graphs on the same inputs: a golden shows what a rule
// did, this shows that it may.
func sameResults(t *testing.T, before, after *ir.Graph, o onnx.Options) {
	t.Helper()
	var in []*ir.Data
	for _, v := range before.Inputs {
		shape, missing, err := onnx.BindShape(v, o)
		if err != nil || len(missing) > 0 {
			t.Fatalf("input %q: %v %v", v.Name, missing, err)
		}
		x := tensor.New(v.Type.DType, shape...)
		for i := range x.Len() {
			x.SetFloat(i, float64((i*7)%11)-5)
		}
		in = append(in, ir.TensorData(x))
	}
	want, err := onnx.Eval(before, o.Opsets, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := onnx.Eval(after, o.Opsets, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		w, g := want[i].Tensor, got[i].Tensor
		if w.String() != g.String() {
			t.Fatalf("output %d is %s, was %s", i, g, w)
		}
		for k := range w.Len() {
			// Folding into weights rounds in another order: a few units in the
			// last place of float32 sums.
			if d := g.Float(k) - w.Float(k); d > 1e-5*(1+abs(w.Float(k))) || d < -1e-5*(1+abs(w.Float(k))) {
				t.Errorf("output %d, element %d is %g, was %g", i, k, g.Float(k), w.Float(k))
			}
		}
	}
}

func abs(v float64) float64 {
	if v < 0 {
		return -v
	}
	return v
}

func TestRulesAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules {
		if r.Doc == "" || r.Apply == nil || seen[r.Name] {
			t.Errorf("rule %q: doc %q, or listed twice", r.Name, r.Doc)
		}
		seen[r.Name] = true
	}
}
