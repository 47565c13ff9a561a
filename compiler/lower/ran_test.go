package lower_test

import (
	"testing"

	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// ran gives what the interpreter makes of a program.
func ran(t *testing.T, p *program.Program, in ...*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	s, err := interp.New(p, interp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := backend.NewOutputs(s)
	if err := s.Run(in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// both runs a program on the interpreter, and its graph on the evaluator.
func both(t *testing.T, g *ir.Graph, p *program.Program, in []*tensor.Tensor) (got, want []*tensor.Tensor) {
	t.Helper()
	want, err := core.EvalGraph(g, in)
	if err != nil {
		t.Fatal(err)
	}
	return ran(t, p, in...), want
}
