package checkpoint

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/internal/shared"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// casesDir finds the recorded checkpoints.
func casesDir(t testing.TB) string { return shared.Dir(t, "checkpoints") }

// load reads a whole tensor of a checkpoint.
func load(t testing.TB, r *engine.Reader, x *atom.Tensor) []byte {
	t.Helper()
	out := make([]byte, 0, x.Bytes())
	if err := r.Stream(x, func(b []byte) error { out = append(out, b...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func open(t testing.TB, place string, o OpenOptions) *atom.Checkpoint {
	t.Helper()
	c, err := Open(place, o)
	if err != nil {
		t.Fatalf("%s: %v", place, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func convert(t testing.TB, c *atom.Checkpoint, out string, target Target) {
	t.Helper()
	r, err := Convert(context.Background(), c, out, target, RunOptions{})
	if err != nil {
		t.Fatalf("convert to %s: %v", out, err)
	}
	if !r.Complete {
		t.Fatalf("convert to %s: not complete: %+v", out, r)
	}
}

// equalStates compares all optimizer states by parameter, bit for bit.
func equalStates(t testing.TB, got, want *atom.Checkpoint) {
	t.Helper()
	n := 0
	gr, wr := engine.NewReader(got), engine.NewReader(want)
	defer gr.Close()
	defer wr.Close()
	for _, w := range want.Params {
		for _, s := range w.States {
			if s.Name == atom.Module {
				continue
			}
			p := got.Param(w.Name)
			if p == nil {
				t.Errorf("%s is missing", w.Name)
				continue
			}
			g := p.State(s.Name)
			if g == nil {
				t.Errorf("%s has no %s", w.Name, s.Name)
				continue
			}
			n++
			if g.DType != s.DType || !bytes.Equal(load(t, gr, g), load(t, wr, s.Tensor)) {
				t.Errorf("%s, %s differs", w.Name, s.Name)
			}
		}
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
}

func TestUniversalEqualsGolden(t *testing.T) {
	root := casesDir(t)
	for _, name := range caseNames(t) {
		golden := filepath.Join(root, name, "universal_golden")
		if _, err := os.Stat(golden); err != nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
			for _, w := range src.Warnings {
				t.Log("warning:", w)
			}
			out := filepath.Join(t.TempDir(), "out")
			convert(t, src, out, Target{Format: Universal})
			got, want := open(t, out, OpenOptions{}), open(t, golden, OpenOptions{})
			equalStates(t, got, want)
			equalStates(t, want, got)
			equalMetadata(t, out, golden)
		})
	}
}

// equalMetadata compares all that the files of zero/ hold beside elements: keys
// and their order, classes, numbers, types and shapes.
func equalMetadata(t *testing.T, got, golden string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(golden, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(golden, p)
		if err != nil || d.IsDir() || !strings.Contains(rel, "/zero/") {
			return err
		}
		a, b := readValue(t, filepath.Join(got, rel)), readValue(t, p)
		if x, ok := b.(*torch.Dict); ok && filepath.Base(p) == "optimizer_state.pt" {
			// DeepSpeed leaves a rank's whole shard in here for ZeRO-3.
			x.Delete("fp32_flat_groups")
			for i := range len(inner(x, "optimizer_state_dict", "state").Pairs()) {
				v, _ := inner(x, "optimizer_state_dict", "state").Get(int64(i))
				v.(*torch.Dict).Delete("exp_avg")
				v.(*torch.Dict).Delete("exp_avg_sq")
			}
		}
		if x, y := show(a), show(b); x != y {
			t.Errorf("%s:\n%s\nthe golden has\n%s", rel, x, y)
		}
		n++
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d files were compared: %v", n, err)
	}
}

func readValue(t *testing.T, file string) torch.Value {
	t.Helper()
	return readFile(t, file).Root
}

// readFile reads a torch file, whose storages can be loaded until the test ends.
func readFile(t *testing.T, file string) *torch.File {
	t.Helper()
	s, err := weights.OpenOS(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f, c, err := torch.OpenIn(s, filepath.Base(file), torch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return f
}

func caseNames(t testing.TB) []string {
	list, err := os.ReadDir(casesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(casesDir(t), e.Name(), "case.json")); err == nil {
			out = append(out, e.Name())
		}
	}
	return out
}
