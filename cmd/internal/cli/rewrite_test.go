package cli

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/pass"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/passes"
)

// peerRuntime loads ONNX Runtime, or skips with the reason.
func peerRuntime(t *testing.T) *ort.Runtime {
	t.Helper()
	dir, _ := (&factory{}).cacheDir()
	lib, err := ort.Find("", dir)
	if err != nil {
		t.Skipf("%v; %s", err, fault.HintOf(err))
	}
	rt, err := ort.Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func peerRun(t *testing.T, rt *ort.Runtime, path string, in []*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	s, err := rt.LoadFile(path, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRewrittenModels reads each shared model, writes it, and writes it
// simplified: ONNX Runtime must give the same bits for the first, and the
// recorded outputs for the second.
func TestRewrittenModels(t *testing.T) {
	shared := sharedDir(t)
	if shared == "" {
		t.Skip("no shared models")
	}
	rt := peerRuntime(t)
	cases, err := conformance.Discover(filepath.Join(shared, "models"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(filepath.Base(c.Name), func(t *testing.T) { rewritten(t, rt, c) })
	}
}

func rewritten(t *testing.T, rt *ort.Runtime, c conformance.Case) {
	m, err := onnxfile.Read(c.Model, onnxfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set, err := conformance.ReadSet(m, c.Sets[0])
	if err != nil {
		t.Fatal(err)
	}
	in, err := tensors(m, set)
	if err != nil {
		t.Skipf("the peer's binding takes tensors only: %v", err)
	}
	want := peerRun(t, rt, c.Model, in)
	dir := t.TempDir()
	same := filepath.Join(dir, "same.onnx")
	if err := m.Write(same, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, x := range peerRun(t, rt, same, in) {
		if !tensor.Equal(x, want[i]) {
			t.Errorf("written again: output %d differs", i)
		}
	}
	o := passes.Options{}
	o.Simplify.Shapes = map[string][]int{}
	for i, v := range m.FeedInputs() {
		o.Simplify.Shapes[v.Name] = in[i].Shape
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	nodes := pass.Count(m.Graph).Nodes
	if _, err := passes.Simplify(ctx, m, o); err != nil {
		t.Fatal(err)
	}
	after := pass.Count(m.Graph).Nodes
	small := filepath.Join(dir, "small.onnx")
	if err := m.Write(small, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	got := peerRun(t, rt, small, in)
	tol := conformance.Tolerance{RTol: 1e-3, ATol: 1e-4, Lenient: conformance.Quantizes(m.Graph)}
	if err := conformance.Compare(wrap(got), wrap(want), tol, conformance.Quantizes(m.Graph)); err != nil {
		t.Errorf("simplified: %v", err)
	}
	if after > nodes {
		t.Errorf("%d nodes became %d", nodes, after)
	}
	if st, err := os.Stat(small); err == nil {
		t.Logf("%d nodes became %d, %d bytes", nodes, after, st.Size())
	}
}
