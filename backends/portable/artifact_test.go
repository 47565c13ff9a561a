package portable_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func lowered(t *testing.T, seed uint64) (*backendtest.Random, *program.Program, backend.Options) {
	t.Helper()
	r, err := backendtest.RandomGraph(seed, 12)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := portable.Target("")
	if err != nil {
		t.Fatal(err)
	}
	p, err := compiler.Program(r.Graph, tr, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, p, backend.Options{Name: "m", Traits: tr, Threads: 1}
}

func outputs(t *testing.T, s backend.Session, in []*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	out := backend.NewOutputs(s)
	if err := s.Run(in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestArtifact holds that an opened artifact computes the same bits as the
// program did, that its kernels are the same to the letter, and that building
// twice gives the same bytes.
func TestArtifact(t *testing.T) {
	for seed := range uint64(12) {
		r, p, o := lowered(t, seed)
		direct, err := portable.Direct(p, 1)
		if err != nil {
			t.Fatal(err)
		}
		want := outputs(t, direct, r.Inputs)
		dirs := []string{t.TempDir(), t.TempDir()}
		for _, d := range dirs {
			if err := portable.Build(context.Background(), p, d, o); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []string{"program.json", "weights.bin", "manifest.json"} {
			a, errA := os.ReadFile(filepath.Join(dirs[0], f))
			b, errB := os.ReadFile(filepath.Join(dirs[1], f))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("seed %d: %s differs between two builds: %v %v", seed, f, errA, errB)
			}
		}
		s, err := portable.Open(dirs[0], 2)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range outputs(t, s, r.Inputs) {
			if !bytes.Equal(got.Bytes(), want[i].Bytes()) {
				t.Errorf("seed %d: output %d of the artifact differs", seed, i)
			}
		}
		text, err := portable.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := portable.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range p.Kernels {
			if k.String() != back.Kernels[i].String() {
				t.Errorf("seed %d: kernel %d comes back as\n%s\nwas\n%s", seed, i, back.Kernels[i], k)
			}
		}
	}
}

// TestBrokenArtifact holds that a changed artifact is refused in words.
func TestBrokenArtifact(t *testing.T) {
	_, p, o := lowered(t, 2)
	for _, c := range []struct{ name, file, old, new, want string }{
		{"truncated", "program.json", "", "", "broken program"},
		{"other version", "program.json", `"format":1`, `"format":9`, "format 9 is not known"},
		{"wild reference", "program.json", `"kernel":0`, `"kernel":999`, "item 999 of"},
		{"other target", "manifest.json", `"portable"`, `"cpu"`, "for the target cpu"},
		{"short weights", "weights.bin", "", "", "the weights have"},
	} {
		dir := t.TempDir()
		if err := portable.Build(context.Background(), p, dir, o); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, c.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.old == "" {
			b = b[:len(b)/2]
		} else {
			b = []byte(strings.Replace(string(b), c.old, c.new, 1))
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err = portable.Open(dir, 1)
		if err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.BadModel) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzDecode holds that no file makes decoding or running panic.
func FuzzDecode(f *testing.F) {
	for seed := range uint64(6) {
		r, err := backendtest.RandomGraph(seed, 4)
		if err != nil {
			f.Fatal(err)
		}
		p, err := compiler.Program(r.Graph, backend.Traits{Lanes: 8, Regs: 32}, compiler.Options{})
		if err != nil {
			f.Fatal(err)
		}
		text, err := portable.Encode(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := portable.Decode(text)
		if err != nil || p.Workspace+p.Weights > 1<<24 {
			return
		}
		for _, k := range p.Kernels {
			for _, l := range k.Locals {
				if l.Len > 1<<20 {
					return
				}
			}
		}
		p.Consts = nil
		_, _ = portable.Direct(p, 1)
	})
}
