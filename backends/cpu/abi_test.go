package cpu

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

// example gives the one code block of a language in the README.
func example(t *testing.T, lang string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), "```"+lang+"\n")
	if len(parts) != 2 {
		t.Fatalf("the README has %d blocks of %s, want one", len(parts)-1, lang)
	}
	code, _, ended := strings.Cut(parts[1], "```")
	if !ended {
		t.Fatalf("the README's block of %s does not end", lang)
	}
	return code
}

// TestReadmeExamples builds the model that ships where the README says, and runs
// the README's programs against it: the digit that both draw is a one.
func TestReadmeExamples(t *testing.T) {
	cc, err := toolchain.Find("")
	if err != nil {
		t.Skip("no C compiler: ", err)
	}
	m, err := onnxfile.Read(filepath.Join("..", "..", "testdata", "models", "digits", "model.onnx"), onnxfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x, err := onnx.Expand(m.Graph, onnx.Options{Opsets: conformance.Opsets(m)})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := Target("native")
	if err != nil {
		t.Fatal(err)
	}
	p, err := compiler.Program(x.Graph, tr, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "bin", "digits")
	if err := os.MkdirAll(out, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Build(context.Background(), p, out, backend.Options{Name: "digits", Traits: tr, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = dir
		b, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, b)
		}
		return string(b)
	}
	t.Run("c", func(t *testing.T) {
		code := example(t, "c")
		if n := strings.Count(code, "\n"); n > 24 {
			t.Errorf("%d lines: the example is to be short", n)
		}
		if err := os.WriteFile(filepath.Join(dir, "stroke.c"), []byte(code), 0o666); err != nil {
			t.Fatal(err)
		}
		run(t, cc.Path, "-O1", "-Wall", "-Werror", "-o", "stroke", "stroke.c", "-Ibin/digits", "-Lbin/digits", "-lmodel", "-Wl,-rpath,bin/digits")
		if got := run(t, filepath.Join(dir, "stroke")); got != "1\n" {
			t.Errorf("printed %q, want 1", got)
		}
	})
	t.Run("python", func(t *testing.T) {
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skip("no python3: the ctypes example was not run")
		}
		if got := run(t, python, "-c", example(t, "python")); got != "1\n" {
			t.Errorf("printed %q, want 1", got)
		}
	})
}
