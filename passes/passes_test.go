package passes_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/passes"
)

// TestTable holds that names are told apart, rows are complete and every pass
// stands behind those that it names.
func TestTable(t *testing.T) {
	var names []string
	for _, p := range passes.Table(passes.Options{}) {
		if p.Name == "" || p.Doc == "" || p.Run == nil || slices.Contains(names, p.Name) {
			t.Errorf("row %q is incomplete or there twice", p.Name)
		}
		for _, a := range p.After {
			if !slices.Contains(names, a) {
				t.Errorf("%s must come after %s", p.Name, a)
			}
		}
		names = append(names, p.Name)
	}
}

const dense = `onnx graph "g" {
  input %x: f32[Nx4]
  init %w = f32[4x2]{1, 2, 3, 4, 5, 6, 7, 8}
  %a = Gemm(%x, %w)
  %y: f32[Nx2] = Identity(%a)
  output %y
}
`

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]func(*passes.Options){
		"a rule":      func(o *passes.Options) { o.Simplify.Only = []string{"identiti"} },
		"a dimension": func(o *passes.Options) { o.Simplify.Dims = map[string]int{"M": 1} },
		"an input":    func(o *passes.Options) { o.Simplify.Shapes = map[string][]int{"z": {1}} },
		"a shape":     func(o *passes.Options) { o.Simplify.Shapes = map[string][]int{"x": {1, 5}} },
		"a pass":      func(o *passes.Options) { o.Run.DumpAfter = []string{"prune"} },
	} {
		var opt passes.Options
		o(&opt)
		if _, err := passes.Simplify(context.Background(), parsed(t, dense, 13, 8), opt); !fault.Is(err, fault.Usage) {
			t.Errorf("%s that does not exist: %v", name, err)
		}
	}
}

// TestShapesBecomeFixed binds a whole input and skips a rule.
func TestShapesBecomeFixed(t *testing.T) {
	m := parsed(t, dense, 13, 8)
	var o passes.Options
	o.Simplify.Shapes = map[string][]int{"x": {3, 4}}
	o.Simplify.Skip = []string{"identity"}
	if _, err := passes.Simplify(context.Background(), m, o); err != nil {
		t.Fatal(err)
	}
	if s := m.Graph.Inputs[0].Type.String(); s != "f32[3x4]" || len(m.Graph.Nodes) != 2 {
		t.Errorf("input %s, %d nodes", s, len(m.Graph.Nodes))
	}
}

// TestRandomizedIsSeeded holds that a seed decides the bytes of the file.
func TestRandomizedIsSeeded(t *testing.T) {
	made := func(seed uint64) []byte {
		m := parsed(t, dense, 13, 8)
		rep, err := passes.Simplify(context.Background(), m, passes.Options{Randomize: true, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Steps) != 2 || rep.Steps[0].Notes[0].Value != 1 {
			t.Errorf("%+v", rep.Steps)
		}
		b, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if a, b, c := made(1), made(1), made(2); !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("the seed does not decide")
	}
	m := parsed(t, dense, 13, 8)
	if _, err := passes.RandomizeWeights(context.Background(), m, 3); err != nil || len(m.Graph.Nodes) != 2 {
		t.Errorf("%v, %s", err, ir.Print(m.Graph))
	}
}
