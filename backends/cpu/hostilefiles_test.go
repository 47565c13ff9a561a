package cpu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// gcc is a C compiler for programs that use artifacts.
func gcc(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("no gcc: %v", err)
	}
	return path
}

func build(t *testing.T, g *ir.Graph, dir string, o backend.Options) {
	t.Helper()
	if o.Traits.CPU == "" {
		tr, err := Target("")
		if err != nil {
			t.Fatal(err)
		}
		o.Traits = tr
	}
	p, err := compiler.Program(g, o.Traits, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Build(context.Background(), p, dir, o); err != nil {
		t.Fatal(err)
	}
}

func ran(t *testing.T, s backend.Session, in ...*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	out := backend.NewOutputs(s)
	if err := s.Run(in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// evil are names that would break out of a C string, a comment, a line, a
// preprocessor directive, a shell word, a path or a format, if they got there.
var evil = []string{
	`"); system("touch PWNED"); //`, "*/ int evil; /*", "a\\", "a\\\"b", "line\n#error evil\n", "line\r\n#include \"/etc/passwd\"",
	"??/\"", "??=error", "%s%n%d", "$(touch PWNED)", "`touch PWNED`", ";touch PWNED;", "-o/tmp/PWNED", "@/etc/passwd", "../../PWNED",
	"nul\x00byte", "é 模型 \U0001f525", "\u202eesrever", "\x1b[2J", "int", "main", "run", "W", "in", "out", "ws", "model", "_Pragma(\"GCC error\")",
	strings.Repeat("x", 5000), " ", "a b", "0", "__FILE__", "\\u0022", "/* */", "//", "'", "L'", "R\"(", ")\"",
}

// TestNamesStayData builds a model whose inputs, outputs, nodes and constants
// have such names: it computes what it should, its header compiles with every
// warning an error in C and C++, nothing else came about, and the manifest
// has the names as they are.
func TestNamesStayData(t *testing.T) {
	cc := gcc(t)
	g := &ir.Graph{Name: "*/ #error evil"}
	for i, name := range evil {
		x := &ir.Value{Name: "i" + name, Type: ir.TensorType(tensor.F32, 2)}
		w := ir.NewConst("w"+name, tensor.Of([]float32{float32(i), 1}, 2))
		n := &ir.Node{Op: "Add", Name: name, Inputs: []*ir.Value{x, w}}
		y := &ir.Value{Name: name, Type: ir.TensorType(tensor.F32, 2), Def: n}
		n.Outputs = []*ir.Value{y}
		g.Inputs, g.Inits, g.Nodes, g.Outputs = append(g.Inputs, x), append(g.Inits, w), append(g.Nodes, n), append(g.Outputs, y)
	}
	x := expanded(t, g)
	for i, name := range []string{"model", `a";*/` + "\n#error evil", "int main(void)"} {
		work := t.TempDir()
		dir := filepath.Join(work, fmt.Sprint("artifact", i))
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Chdir(work)
		build(t, x, dir, backend.Options{Name: name, KeepSource: true, Manifest: map[string]any{"from": name}})
		s, err := Open(dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		for k, o := range ran(t, s, counted(x)...) {
			if want := fmt.Sprintf("[2] %d 3", k+1); spelled(o) != want {
				t.Errorf("output %d: got %s, want %s", k, spelled(o), want)
			}
			if s.Outputs()[k].Name != evil[k] || s.Inputs()[k].Name != "i"+evil[k] {
				t.Errorf("port %d is named %q, %q", k, s.Inputs()[k].Name, s.Outputs()[k].Name)
			}
		}
		s.Close()
		for lang, std := range map[string]string{"c": "c99", "c++": "c++11"} {
			cmd := exec.Command(cc, "-x", lang, "-std="+std, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-trigraphs", "-fsyntax-only", filepath.Join(dir, "model.h"))
			if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "cc1plus") {
				t.Errorf("the header in %s: %v\n%.2000s", lang, err, out)
			}
		}
		src, err := os.ReadFile(filepath.Join(dir, "src", "model.c"))
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"touch PWNED\"", "\n#error", "*/ int", "??/", "/etc/passwd\"\n"} {
			if bytes.Contains(src, []byte(bad)) {
				t.Errorf("model.c has %q", bad)
			}
		}
		left, err := os.ReadDir(work)
		if err != nil || len(left) != 1 {
			t.Errorf("beside the artifact: %v %v", left, err)
		}
	}
}

// affine is y = x·w + b with weights in the weights file.
const affine = `onnx graph "g" {
  input %x: f32[1x4]
  init %w = f32[4x3]{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
  %y: f32[1x3] = MatMul(%x, %w)
  output %y
}`

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBuildsAreReproducible holds that neither the folder, nor TMPDIR, nor the
// cache, nor the working directory decides a byte.
func TestBuildsAreReproducible(t *testing.T) {
	g := expanded(t, parsed(t, affine))
	var first map[string]string
	cache := t.TempDir()
	for i, c := range []string{"", cache, cache, filepath.Join(t.TempDir(), "new")} {
		dir, tmp := filepath.Join(t.TempDir(), strings.Repeat("deep", i)), t.TempDir()
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", tmp)
		t.Chdir(tmp)
		build(t, g, dir, backend.Options{Name: "affine", CacheDir: c, KeepSource: true})
		got := files(t, dir)
		if first == nil {
			first = got
		}
		for name := range first {
			if got[name] != first[name] {
				t.Errorf("build %d: %s differs", i, name)
			}
		}
		if len(got) != len(first) {
			t.Errorf("build %d has %d files, the first %d", i, len(got), len(first))
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("build %d left %v in TMPDIR (%v)", i, left, err)
		}
	}
}

// TestArtifactsSideBySide loads two artifacts of one name into one process:
// each keeps its weights.
func TestArtifactsSideBySide(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	build(t, expanded(t, parsed(t, affine)), a, backend.Options{Name: "m"})
	build(t, expanded(t, parsed(t, strings.Replace(affine, "{1, 2, 3", "{100, 200, 300", 1))), b, backend.Options{Name: "m"})
	var open []backend.Session
	for _, dir := range []string{a, b, a} {
		s, err := Open(dir, 2)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		open = append(open, s)
	}
	x := tensor.Of([]float32{1, 2, 3, 4}, 1, 4)
	// 1·1 + 2·4 + 3·7 + 4·10 = 70, …; with the first row a hundredfold 169.
	for i, want := range []string{"[1x3] 70 80 90", "[1x3] 169 278 387", "[1x3] 70 80 90"} {
		if got := spelled(ran(t, open[i], x)[0]); got != want {
			t.Errorf("artifact %d: got %s, want %s", i, got, want)
		}
	}
}

// TestBrokenArtifacts spoils an artifact's files: each is refused with a class
// and a sentence, none crashes.
func TestBrokenArtifacts(t *testing.T) {
	good := t.TempDir()
	build(t, expanded(t, parsed(t, affine)), good, backend.Options{Name: "m"})
	edit := func(key string, val any) func(dir string) error {
		return func(dir string) error {
			p := filepath.Join(dir, "manifest.json")
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				return err
			}
			m[key] = val
			b, err = json.Marshal(m)
			return errors.Join(err, os.WriteFile(p, b, 0o666))
		}
	}
	write := func(name, text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666) }
	}
	remove := func(name string) func(dir string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	port := func(typ string, shape ...int) []artifact.Port {
		return []artifact.Port{{Name: "x", Type: typ, Shape: shape}}
	}
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		kind  fault.Kind
		says  string
	}{
		{"no manifest", remove("manifest.json"), fault.BadModel, "not an artifact"},
		{"no json", write("manifest.json", "\x00\xff"), fault.BadModel, "broken manifest"},
		{"json of another shape", write("manifest.json", `{"format": 1, "inputs": 3}`), fault.BadModel, "broken manifest"},
		{"a later format", edit("format", 99), fault.BadModel, "format 99"},
		{"another architecture", edit("arch", "s390x"), fault.Toolchain, "s390x"},
		{"another symbol", edit("symbol", "no_such"), fault.BadModel, "no function no_such_run"},
		{"a symbol of libc", edit("symbol", "abort"), fault.BadModel, "no function abort_run"},
		{"no library", remove("libmodel.so"), fault.BadModel, "libmodel.so"},
		{"an empty library", write("libmodel.so", ""), fault.BadModel, "libmodel.so"},
		{"a library of another kind", write("libmodel.so", "#!/bin/sh\n"), fault.BadModel, "libmodel.so"},
		{"no weights", remove("weights.bin"), fault.BadModel, "weights"},
		{"short weights", write("weights.bin", "short"), fault.BadModel, "weights"},
		{"long weights", write("weights.bin", strings.Repeat("x", 1<<20)), fault.BadModel, "weights"},
		{"an unknown type", edit("inputs", port("float7", 1, 4)), fault.BadModel, "float7"},
		{"a smaller input", edit("inputs", port("float", 1, 1)), fault.BadModel, "manifest"},
		{"a smaller output", edit("outputs", port("float", 1)), fault.BadModel, "manifest"},
		{"another count", edit("outputs", []artifact.Port{}), fault.BadModel, "manifest"},
		{"a negative shape", edit("inputs", port("float", -1, -4)), fault.BadModel, "manifest"},
		{"an absurd shape", edit("inputs", port("float", 1<<40, 1<<40)), fault.BadModel, "manifest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a")
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, 1)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v: %v, want %v: …%s…", fault.KindOf(err), err, c.kind, c.says)
			}
		})
	}
}

// TestCallersAtOnce runs one library from several threads at once, each with a
// workspace of its own, while each run shares its work among two threads: all
// results are those of a run alone, bit for bit.
func TestCallersAtOnce(t *testing.T) {
	g := expanded(t, parsed(t, `onnx graph "g" {
  input %x: f32[64x96]
  input %w: f32[96x128]
  %a: f32[64x128] = MatMul(%x, %w)
  %b: f32[64x128] = Tanh(%a)
  %c: f32[64x128] = Softmax(%b)
  %d: f32[128x64] = Transpose(%c)
  %y: f32[64x64] = MatMul(%c, %d)
  output %y
}`))
	dir := t.TempDir()
	build(t, g, dir, backend.Options{Name: "m", Threads: 2})
	const callers, rounds = 4, 100
	ins, want := make([][]*tensor.Tensor, callers), make([][]byte, callers)
	sessions := make([]backend.Session, callers)
	for i := range callers {
		s, err := Open(dir, 2)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sessions[i] = s
		for k, p := range s.Inputs() {
			x := tensor.New(p.Type, p.Shape...)
			for j := range x.Len() {
				x.SetFloat(j, float64((j*(7+2*i)+k)%23-11)/64)
			}
			ins[i] = append(ins[i], x)
		}
		want[i] = ran(t, s, ins[i]...)[0].Clone().Bytes()
	}
	errs := make(chan error, callers)
	for i := range callers {
		go func() {
			out := backend.NewOutputs(sessions[i])
			for r := range rounds {
				clear(out[0].Bytes())
				if err := sessions[i].Run(ins[i], out); err != nil {
					errs <- err
					return
				}
				if !bytes.Equal(out[0].Bytes(), want[i]) {
					errs <- fmt.Errorf("caller %d: round %d differs", i, r)
					return
				}
			}
			errs <- nil
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestRegionsOfDifferentSizes runs kernels of few and of many parallel
// iterations right after each other: a worker that is late in one region must
// not take a share of the next before that one is complete.
func TestRegionsOfDifferentSizes(t *testing.T) {
	text := "input %x0: f32[2x4096]\n"
	for i := range 12 {
		// Rows of 4096, then 4096 rows: both run in parallel, in 2 and in 8 shares.
		text += fmt.Sprintf("%%a%[1]d: f32[2x4096] = Softmax(%%x%[1]d) {axis = 1}\n%%b%[1]d: f32[4096x2] = Transpose(%%a%[1]d)\n"+
			"%%c%[1]d: f32[4096x2] = Softmax(%%b%[1]d) {axis = 1}\n%%x%[2]d: f32[2x4096] = Transpose(%%c%[1]d)\n", i, i+1)
	}
	g := expanded(t, parsed(t, "onnx graph \"g\" {\n"+text+"output %x12\n}"))
	dir := t.TempDir()
	build(t, g, dir, backend.Options{Name: "m", Threads: 3, KeepSource: true})
	s, err := Open(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := counted(g)
	for i := range in[0].Len() {
		in[0].SetFloat(i, float64(i%37)/9)
	}
	want := ran(t, s, in...)[0].Clone().Bytes()
	out := backend.NewOutputs(s)
	for r := range 500 {
		clear(out[0].Bytes())
		if err := s.Run(in, out); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out[0].Bytes(), want) {
			t.Fatalf("round %d differs", r)
		}
	}
}
