package passes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/shared"
	"github.com/lathe-ml/lathe/passes"
)

// filter picks models or cases by a regular expression on their names.
var filter = regexp.MustCompile(os.Getenv("LATHE_FILTER"))

func peer(t testing.TB) *ort.Runtime {
	t.Helper()
	lib, err := ort.Find("", os.Getenv("LATHE_CACHE"))
	if err != nil {
		t.Skipf("%v; %s", err, fault.HintOf(err))
	}
	r, err := ort.Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// models are the shared models: those with recorded data, and the graphs of
// light/ without.
func models(t testing.TB) []conformance.Case {
	t.Helper()
	root := shared.Dir(t, "models")
	cases, err := conformance.Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	light, err := filepath.Glob(filepath.Join(root, "light", "*", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range light {
		cases = append(cases, conformance.Case{Name: "light/" + filepath.Base(filepath.Dir(p)), Model: p})
	}
	if len(cases) < 40 {
		t.Fatalf("only %d models found", len(cases))
	}
	var some []conformance.Case
	for _, c := range cases {
		if filter.MatchString(c.Name) {
			some = append(some, c)
		}
	}
	return some
}

func read(t testing.TB, path string) *onnxfile.Model {
	t.Helper()
	m, err := onnxfile.Read(path, onnxfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// runPeer writes a model into a new folder, as a command would, and runs the
// file in ONNX Runtime without its own optimisations.
func runPeer(t *testing.T, r *ort.Runtime, m *onnxfile.Model, in []*tensor.Tensor) []*ir.Data {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := m.Write(path, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return runFile(t, r, path, in)
}

func runFile(t *testing.T, r *ort.Runtime, path string, in []*tensor.Tensor) []*ir.Data {
	t.Helper()
	s, err := r.LoadFile(path, ort.Options{IntraThreads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	var data []*ir.Data
	for _, x := range out {
		data = append(data, ir.TensorData(x))
	}
	return data
}

// tensors are the recorded inputs of a model, or seeded random ones.
func tensors(t testing.TB, m *onnxfile.Model, c conformance.Case) []*tensor.Tensor {
	t.Helper()
	var in []*tensor.Tensor
	if len(c.Sets) == 0 {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, v := range m.FeedInputs() {
			x := tensor.New(v.Type.DType, v.Static()...)
			for i := range x.Len() {
				x.SetFloat(i, rng.NormFloat64())
			}
			in = append(in, x)
		}
		return in
	}
	set, err := conformance.ReadSet(m, c.Sets[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range set.Inputs {
		in = append(in, d.Unwrap().Tensor)
	}
	return in
}

// TestModels holds, for every shared model, that ONNX Runtime gives the same
// outputs for the file, for what is written after reading it, and for what is
// written after simplifying it. The constant weights of light/ are replaced by
// random ones first: equal weights would hide a wrong order.
func TestModels(t *testing.T) {
	r := peer(t)
	for _, c := range models(t) {
		t.Run(c.Name, func(t *testing.T) {
			if testing.Short() && strings.HasPrefix(c.Name, "light/") {
				t.Skip("hundreds of megabytes of random weights; left out by -short")
			}
			m := read(t, c.Model)
			in := tensors(t, m, c)
			var want []*ir.Data
			if strings.HasPrefix(c.Name, "light/") {
				if _, err := passes.RandomizeWeights(context.Background(), m, 1); err != nil {
					t.Fatal(err)
				}
				want = runPeer(t, r, m, in)
				telling(t, want[0].Tensor)
			} else {
				want = runFile(t, r, c.Model, in)
				if err := conformance.Compare(runPeer(t, r, m, in), want, conformance.Tolerance{}, false); err != nil {
					t.Errorf("read and written: %v", err)
				}
			}
			rep, err := passes.Simplify(context.Background(), m, passes.Options{})
			if err != nil {
				t.Fatal(err)
			}
			tol := conformance.Tolerance{RTol: 1e-3, ATol: 1e-4}
			if err := conformance.Compare(runPeer(t, r, m, in), want, tol, false); err != nil {
				t.Errorf("simplified: %v", err)
			}
			s := rep.Steps[0]
			t.Logf("%d nodes became %d, %d bytes became %d, %d edits, %.2f s: %s", s.Before.Nodes, s.After.Nodes, s.Before.Bytes, s.After.Bytes, s.Edits, s.Seconds, rules(rep.ByRule()))
			if s.After.Bytes > s.Before.Bytes+1<<20 {
				t.Errorf("the constants grew from %d to %d bytes", s.Before.Bytes, s.After.Bytes)
			}
			runtime.GC()
		})
	}
}

func rules(m map[string]int) string {
	var b strings.Builder
	names, _ := passes.SimplifyRules()
	for _, n := range append(names, "dead") {
		if m[n] > 0 {
			fmt.Fprintf(&b, "%s %d ", n, m[n])
		}
	}
	return b.String()
}

// telling holds that outputs are finite and not all alike.
func telling(t *testing.T, x *tensor.Tensor) {
	t.Helper()
	lo, hi := x.Float(0), x.Float(0)
	for i := range x.Len() {
		f := x.Float(i)
		if f != f || f-f != 0 {
			t.Fatalf("output %d is %v", i, f)
		}
		lo, hi = min(lo, f), max(hi, f)
	}
	if hi-lo < 1e-6*max(hi, -lo) {
		t.Errorf("all outputs are between %v and %v", lo, hi)
	}
}
