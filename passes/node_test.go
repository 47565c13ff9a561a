package passes_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/internal/shared"
	"github.com/lathe-ml/lathe/passes"
)

// TestNode simplifies each of ONNX's node cases and holds that the reference
// evaluator still gives the recorded outputs, and refuses no case that it does
// not refuse before.
func TestNode(t *testing.T) {
	cases, err := conformance.Discover(shared.Dir(t, "onnx-backend-tests", "node"))
	if err != nil {
		t.Fatal(err)
	}
	var some []conformance.Case
	for _, c := range cases {
		if filter.MatchString(c.Name) {
			some = append(some, c)
		}
	}
	tol := conformance.Standard
	tol.Lenient = true
	edits := 0
	simplified := func(ctx context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
		rep, err := passes.Simplify(ctx, m, passes.Options{})
		if err != nil {
			return conformance.Outputs{}, fmt.Errorf("simplify: %w", err)
		}
		edits += len(rep.Edits)
		out, err := conformance.Eval(ctx, m, s)
		if err != nil {
			return out, err
		}
		// What is written and read again is the same model.
		b, err := m.Bytes()
		if err != nil {
			return out, err
		}
		_, err = onnxfile.ReadBytes(b, onnxfile.Options{})
		return out, err
	}
	plain := conformance.Run(context.Background(), some, conformance.Eval, conformance.Options{Backend: "eval", Tolerance: tol})
	after := conformance.Run(context.Background(), some, simplified, conformance.Options{Backend: "eval", Tolerance: tol, Workers: 1})
	passed := 0
	for i, c := range after.Cases {
		if before := plain.Cases[i]; c.Status != before.Status {
			t.Errorf("%s: %s (%s), without simplification %s", c.Name, c.Status, c.Reason, before.Status)
		}
		if c.Status == conformance.Pass {
			passed++
		}
	}
	t.Logf("%d of %d cases pass, after %d edits", passed, len(some), edits)
}
