package conformance

import (
	"context"
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/internal/shared"
)

var all = flag.Bool("all", false, "run slow models too")

// slow are the models that take more than a second.
var slow = []string{
	"basic-pitch", "hand-landmark", "magika-v3.3", "mobilenetv2-fp32", "mobilenetv2-qat-uint8-qdq", "shufflenet-v2-12-int8",
	"squeezenet1.0-fp16", "squeezenet1.0-fp32", "super-resolution-10", "ultraface-rfb-320", "yolox-nano", "face-landmark",
}

// TestModels runs the recorded data of every shared model: floats within rtol
// 1e-3 and atol 1e-4 of ONNX Runtime, quantized outputs within one step.
func TestModels(t *testing.T) {
	cases := picked(t, shared.Dir(t, "models"))
	kept := cases[:0]
	for _, c := range cases {
		if slices.Contains(slow, c.Name) && !*all && *filter == "" {
			t.Logf("%s takes seconds on the reference evaluator: left out without -all", c.Name)
			continue
		}
		kept = append(kept, c)
	}
	for _, r := range []struct {
		name string
		run  Runner
	}{{"eval", widened(Eval)}, {"expand", widened(Expand)}} {
		t.Run(r.name, func(t *testing.T) {
			tol := Tolerance{RTol: 1e-3, ATol: 1e-4, Lenient: true}
			rep := Run(context.Background(), kept, r.run, Options{Backend: r.name, Tolerance: tol, Timeout: 10 * time.Minute})
			for _, c := range rep.Cases {
				if c.Status != Pass {
					t.Errorf("%s: %s %s: %s", c.Name, c.Status, c.Op, c.Reason)
					continue
				}
				t.Logf("%s: %s in %s, lenient %v, bound %v", c.Name, c.Status, c.Took.Round(time.Millisecond), c.Lenient, c.Bound)
			}
		})
	}
}

// widened runs models of narrow floats as ONNX Runtime does on a CPU: float32
// between their inputs, weights and outputs.
func widened(run Runner) Runner {
	return func(ctx context.Context, m *onnxfile.Model, s *Set) (Outputs, error) {
		onnx.Widen(m.Graph)
		return run(ctx, m, s)
	}
}
