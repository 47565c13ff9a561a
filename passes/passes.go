package passes

import (
	"context"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/pass"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/passes/randomize"
	"github.com/lathe-ml/lathe/passes/simplify"
)

// Options of a run over a model.
type Options struct {
	// Simplify are the options of the simplification.
	Simplify simplify.Options
	// Randomize replaces the weights by seeded random ones first.
	Randomize bool
	Seed      uint64
	// Run are the runner's services: dumps, the limit of edits, progress.
	Run pass.Options
}

// Table lists all passes in the order in which they run.
func Table(o Options) []pass.Pass {
	return []pass.Pass{
		randomized(o.Seed),
		after(simplify.Pass(o.Simplify), "randomize"), // so that new weights are folded like any others
	}
}

func after(p pass.Pass, names ...string) pass.Pass {
	p.After = append(p.After, names...)
	return p
}

// randomized is the row of package randomize.
func randomized(seed uint64) pass.Pass {
	return pass.Pass{
		Name: "randomize", Doc: "replace the weights by seeded He-normal values",
		From: ir.ONNX, To: ir.ONNX,
		Run: func(_ context.Context, s *pass.Subject, _ *rewrite.Log) (pass.Notes, error) {
			r, err := randomize.Weights(s.Graph, randomize.Options{Seed: seed, InitsAreInputs: s.IRVersion > 0 && s.IRVersion < 4})
			return pass.Notes{
				{Name: "weights", Value: int64(r.Weights)}, {Name: "vectors", Value: int64(r.Vectors)},
				{Name: "kept", Value: int64(r.Kept)}, {Name: "values", Value: int64(r.Values)},
			}, err
		},
	}
}

// Simplify simplifies a model in place; with Randomize set its weights are
// replaced first. Calls of the model's own functions are replaced by their
// bodies. The report lists each edit: at which node, what and why.
func Simplify(ctx context.Context, m *onnxfile.Model, o Options) (pass.Report, error) {
	if !o.Randomize {
		o.Run.Skip = append(o.Run.Skip, "randomize")
	}
	return run(ctx, m, o)
}

// RandomizeWeights replaces a model's weights, and nothing else, by seeded
// random ones: the same on every machine.
func RandomizeWeights(ctx context.Context, m *onnxfile.Model, seed uint64) (pass.Report, error) {
	return run(ctx, m, Options{Seed: seed, Run: pass.Options{Skip: []string{"simplify"}}})
}

func run(ctx context.Context, m *onnxfile.Model, o Options) (pass.Report, error) {
	if err := m.InlineFunctions(onnx.SameMeaning); err != nil {
		return pass.Report{}, err
	}
	s := &pass.Subject{Graph: m.Graph, Opsets: m.OpsetTable(), IRVersion: m.IRVersion}
	rep, err := pass.Run(ctx, Table(o), s, o.Run)
	if f := fault.As(err); f != nil && f.File == "" {
		f.File = m.Path
	}
	return rep, err
}

// SimplifyRules lists the rules of the simplification and what each says.
func SimplifyRules() (names, docs []string) { return simplify.Rules() }
