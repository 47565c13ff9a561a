package ort

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/shared"
)

// open loads the peer, or skips with the reason.
func open(t testing.TB) *Runtime {
	t.Helper()
	lib, err := Find("", os.Getenv("LATHE_CACHE"))
	if err != nil {
		t.Skipf("%v; %s", err, fault.HintOf(err))
	}
	r, err := Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLoadedOnce(t *testing.T) {
	a := open(t)
	b, err := Open(a.Path)
	if err != nil || a != b {
		t.Errorf("a second Open gives another runtime: %p %p, %v", a, b, err)
	}
	if a.Version == "" {
		t.Error("no version")
	}
}

func TestSessionInfos(t *testing.T) {
	r := open(t)
	s, err := r.LoadFile(shared.Dir(t, "models", "mnist-8", "model.onnx"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Inputs) != 1 || s.Inputs[0].Name != "Input3" || s.Inputs[0].DType != tensor.F32 || !slices.Equal(s.Inputs[0].Shape, []int{1, 1, 28, 28}) {
		t.Errorf("inputs %+v", s.Inputs)
	}
	if len(s.Outputs) != 1 || s.Outputs[0].Name != "Plus214_Output_0" || !slices.Equal(s.Outputs[0].Shape, []int{1, 10}) {
		t.Errorf("outputs %+v", s.Outputs)
	}
}

func TestThreadsAgree(t *testing.T) {
	r := open(t)
	model, err := os.ReadFile(shared.Dir(t, "models", "mnist-8", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	in := tensor.New(tensor.F32, 1, 1, 28, 28)
	for i := range in.Len() {
		in.SetFloat(i, float64(i%256))
	}
	var first []float64
	for _, o := range []Options{{IntraThreads: 1}, {IntraThreads: 2}, {IntraThreads: 2, OptLevel: OptAll, NoSpinning: true}} {
		s, err := r.LoadBytes(model, o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run([]*tensor.Tensor{in})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = out[0].Floats()
		}
		for i, v := range out[0].Floats() {
			if math.Abs(v-first[i]) > 1e-4*math.Abs(first[i])+1e-3 {
				t.Errorf("%+v: output %d is %g, first %g", o, i, v, first[i])
			}
		}
		s.Close()
	}
}

func TestErrors(t *testing.T) {
	r := open(t)
	if _, err := r.LoadBytes([]byte("not a model"), Options{}); !fault.Is(err, fault.BadModel) {
		t.Errorf("junk: %v", err)
	}
	s, err := r.LoadFile(shared.Dir(t, "models", "mnist-8", "model.onnx"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Run(nil); !fault.Is(err, fault.BadModel) {
		t.Errorf("no input: %v", err)
	}
	if _, err := s.Run([]*tensor.Tensor{tensor.New(tensor.F32, 2)}); !fault.Is(err, fault.BadModel) {
		t.Errorf("wrong shape: %v", err)
	}
	if _, err := s.Run([]*tensor.Tensor{tensor.New(tensor.F64, 1, 1, 28, 28)}); !fault.Is(err, fault.BadModel) {
		t.Errorf("wrong type: %v", err)
	}
}

func TestFindRefusesWrongPath(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.so")
	if _, err := Find(missing, ""); !fault.Is(err, fault.Toolchain) {
		t.Errorf("given path: %v", err)
	}
	t.Setenv("LATHE_ORT", missing)
	if _, err := Find("", ""); !fault.Is(err, fault.Toolchain) {
		t.Errorf("LATHE_ORT: %v", err)
	}
}

func TestOpenRefusesOtherLibrary(t *testing.T) {
	p := filepath.Join(t.TempDir(), "x.so")
	if err := os.WriteFile(p, []byte("no library"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(p); !fault.Is(err, fault.Toolchain) {
		t.Errorf("got %v", err)
	}
}
