package conformance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// writeCase writes a case: y = Relu(x) on -1 and 2, with the given record.
func writeCase(t *testing.T, root, name string, record ...float32) {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.TensorType(tensor.F32, 2)}
	y := &ir.Value{Name: "y", Type: ir.TensorType(tensor.F32, 2)}
	n := &ir.Node{Op: "Relu", Inputs: []*ir.Value{x}, Outputs: []*ir.Value{y}}
	y.Def = n
	g := &ir.Graph{Name: "g", Inputs: []*ir.Value{x}, Outputs: []*ir.Value{y}, Nodes: []*ir.Node{n}}
	set := filepath.Join(root, name, "test_data_set_0")
	if err := os.MkdirAll(set, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := onnxfile.New(g, 14).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte, err error) {
		if err == nil {
			err = os.WriteFile(path, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(root, name, "model.onnx"), b, nil)
	b, err = onnxfile.EncodeData("x", ir.TensorData(f32s(-1, 2)))
	write(filepath.Join(set, "input_0.pb"), b, err)
	b, err = onnxfile.EncodeData("y", ir.TensorData(f32s(record...)))
	write(filepath.Join(set, "output_0.pb"), b, err)
}

func TestRun(t *testing.T) {
	root := t.TempDir()
	writeCase(t, root, "right", 0, 2)
	writeCase(t, root, "deep/wrong", 0, 3)
	writeCase(t, root, "deep/short", 0)
	cases, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) != 3 || cases[0].Name != "deep/short" || cases[2].Name != "right" {
		t.Fatalf("found %v", cases)
	}
	for name, r := range map[string]Runner{"eval": Eval, "expand": Expand} {
		rep := Run(context.Background(), cases, r, Options{Tolerance: Standard})
		if rep.Pass != 1 || rep.Fail != 2 || rep.Unsupported != 0 || rep.Cases[2].Status != Pass {
			t.Errorf("%s: %+v", name, rep)
		}
	}
}

func TestRunSurvivesItsRunner(t *testing.T) {
	root := t.TempDir()
	writeCase(t, root, "a", 0, 2)
	cases, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		run    Runner
		status Status
		reason string
	}{
		{"panic", func(context.Context, *onnxfile.Model, *Set) (Outputs, error) { panic("at the disco") }, Fail, "panic: at the disco (compiler/conformance/run_test.go"},
		{"refusal", func(context.Context, *onnxfile.Model, *Set) (Outputs, error) {
			return Outputs{}, fault.New(fault.Unsupported, "no such op").AtNode("n", "Op")
		}, Unsupported, "no such op"},
		{"error", func(context.Context, *onnxfile.Model, *Set) (Outputs, error) { return Outputs{}, errors.New("broken") }, Fail, "broken"},
		{"nothing", func(context.Context, *onnxfile.Model, *Set) (Outputs, error) { return Outputs{}, nil }, Fail, "0 outputs, recorded are 1"},
		{"hang", func(ctx context.Context, _ *onnxfile.Model, _ *Set) (Outputs, error) {
			<-ctx.Done()
			time.Sleep(time.Hour)
			return Outputs{}, nil
		}, Fail, "no result after"},
	} {
		rep := Run(context.Background(), cases, c.run, Options{Tolerance: Standard, Timeout: 50 * time.Millisecond})
		if r := rep.Cases[0]; r.Status != c.status || !strings.HasPrefix(r.Reason, c.reason) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestRunCountsBound(t *testing.T) {
	root := t.TempDir()
	writeCase(t, root, "a", 0, 2)
	cases, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	rep := Run(context.Background(), cases, func(context.Context, *onnxfile.Model, *Set) (Outputs, error) {
		return Outputs{Data: []*ir.Data{ir.TensorData(f32s(0, 2))}, Bound: []string{"x"}}, nil
	}, Options{Tolerance: Standard})
	if rep.Pass != 1 || rep.Specialized != 1 {
		t.Errorf("%+v", rep)
	}
}
