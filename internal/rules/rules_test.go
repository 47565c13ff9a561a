package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lathe-ml/lathe/"

// mayImport is the picture in ARCHITECTURE.md: a top-level folder and those it
// may import. Every folder may import itself and internal.
var mayImport = map[string][]string{
	"compiler": {},
	"passes":   {"compiler"},
	"backends": {"compiler"},
	"zoo":      {"compiler"},
	"search":   {"compiler", "passes"},
	"cmd":      {"compiler", "passes", "backends", "zoo", "search"},
	"testdata": {"compiler", "passes", "backends", "zoo"},
	"internal": {},
}

// inner are the rules inside the folders: what a package must not know, and
// why. A pattern ending in /... covers the packages below too.
var inner = []struct{ from, not, why string }{
	{"compiler/tensor", "compiler/...", "tensor is the ground floor"},
	{"compiler/fault", "compiler/...", "fault is the ground floor"},
	{"compiler/ir", "compiler/core", "the graph knows no level's ops"},
	{"compiler/ir", "compiler/onnx", "the graph knows no level's ops"},
	{"compiler/ir", "compiler/onnxfile/...", "the graph knows no files"},
	{"compiler/ir", "compiler/loop", "the graph knows no kernels"},
	{"compiler/loop", "compiler/ir", "kernels know no graph"},
	{"compiler/loop", "compiler/core", "kernels know no graph"},
	{"compiler/loop", "compiler/onnx", "kernels know no graph"},
	{"compiler/program", "compiler/ir", "a backend sees nothing above the program"},
	{"compiler/program", "compiler/core", "a backend sees nothing above the program"},
	{"compiler/core", "compiler/onnx", "core ops do not know what expands into them"},
	{"compiler/...", "compiler/onnxfile/onnxgo", "the second reader is chosen by cmd"},
	{"backends/...", "compiler/core", "backends see the program and nothing above it"},
	{"backends/...", "compiler/onnx", "backends see the program and nothing above it"},
	{"backends/...", "compiler/ir", "backends see the program and nothing above it"},
	{"zoo/...", "compiler/loop", "files know no kernels"},
	{"zoo/...", "compiler/lower", "files know no kernels"},
	{"cmd/internal/ui", "compiler/...", "streams know no models"},
}

// innerExempt are packages that an inner rule names as its exception.
var innerExempt = map[string]bool{
	"backends/backendtest":     true, // runs core rows on every backend
	"compiler/onnxfile/onnxgo": true,
}

// owners lists the packages that may import a library: one owner each.
var owners = map[string][]string{
	"github.com/spf13/cobra":            {"cmd/internal/cli"},
	"github.com/spf13/pflag":            {"cmd/internal/cli"},
	"github.com/schollz/progressbar/v3": {"cmd/internal/ui"},
	"golang.org/x/term":                 {"cmd/internal/ui"},
	"github.com/ebitengine/purego":      {"backends/dylib"},
	"github.com/owulveryck/onnx-go":     {"compiler/onnxfile/onnxgo", "compiler/onnxfile/onnxgo/..."},
	"gorgonia.org/tensor":               {"compiler/onnxfile/onnxgo", "compiler/onnxfile/onnxgo/..."},
	"gonum.org/v1/gonum":                {"compiler/onnxfile/onnxgo", "compiler/onnxfile/onnxgo/..."},
	// Pictures as data, and the op ImageDecoder, whose meaning is decoding.
	"golang.org/x/image":              {"zoo/data", "compiler/onnx"},
	"github.com/nlpodyssey/gopickle":  {"zoo/formats/torch"},
	"github.com/goccy/go-yaml":        {"cmd/internal/cli", "cmd/internal/recipe", "zoo/checkpoint/..."},
	"google.golang.org/protobuf":      {"compiler/onnxfile/pb", "compiler/onnxfile/pb/..."},
	"golang.org/x/sync":               {"compiler/...", "backends/toolchain", "search/...", "zoo/...", "cmd/..."},
	"github.com/rogpeppe/go-internal": {},
	"github.com/google/go-cmp":        {},
	"golang.org/x/tools":              {"internal/golden"},
}

type file struct {
	path string // relative to the module, with slashes
	dir  string
	test bool
	ast  *ast.File
	src  []byte
}

var root = func() string {
	dir, _ := os.Getwd()
	return filepath.Join(dir, "..", "..")
}()

// source parses every Go file of the module.
func source(t *testing.T) []file {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var all []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "node_modules" || n == "vendor") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		f, err := parser.ParseFile(token.NewFileSet(), rel, src, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, file{rel, path.Dir(rel), strings.HasSuffix(rel, "_test.go"), f, src})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found: the walk is wrong", len(all))
	}
	return all
}

func imports(f file) []string {
	var list []string
	for _, s := range f.ast.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		list = append(list, p)
	}
	return list
}

func matches(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pkg == pattern
}

func top(pkg string) string { first, _, _ := strings.Cut(pkg, "/"); return first }

// forbidden says why a file of package from may not import package to; "" if
// it may.
func forbidden(from, to string) string {
	a, b := top(from), top(to)
	allowed, known := mayImport[a]
	switch {
	case !known:
		return "the folder " + a + " is not in the picture"
	case a != b && b != "internal" && !slices.Contains(allowed, b):
		return a + " may not import " + b
	case innerExempt[from] || from == to:
		return ""
	}
	for _, r := range inner {
		if matches(r.from, from) && matches(r.not, to) {
			return r.why
		}
	}
	return ""
}

// TestImports holds the picture. Tests may import what they compare with.
func TestImports(t *testing.T) {
	for _, f := range source(t) {
		if f.test {
			continue
		}
		for _, imp := range imports(f) {
			if to, ours := strings.CutPrefix(imp, module); ours {
				if why := forbidden(f.dir, to); why != "" {
					t.Errorf("%s imports %s: %s", f.path, to, why)
				}
			}
		}
	}
}

// TestForbidden checks the checker: rules that never fire are no rules.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/internal/cli", "backends/ort", true},
		{"compiler/lower", "compiler/loop", true},
		{"zoo/data", "internal/nearest", true},
		{"compiler/ir", "compiler/core", false},
		{"compiler/loop", "compiler/ir", false},
		{"compiler/core", "passes/expand", false},
		{"passes/expand", "backends/cpu", false},
		{"search/tune", "backends/cpu", false},
		{"backends/cpu", "compiler/core", false},
		{"backends/backendtest", "compiler/core", true},
		{"internal/golden", "compiler/ir", false},
		{"scripts/x", "compiler/ir", false},
		{"compiler/tensor", "compiler/ir", false},
	} {
		if why := forbidden(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s → %s: %q", c.from, c.to, why)
		}
	}
}

// TestOneOwnerPerLibrary holds that each third-party library is wrapped once.
func TestOneOwnerPerLibrary(t *testing.T) {
	for _, f := range source(t) {
		for _, imp := range imports(f) {
			if !strings.Contains(top(imp), ".") || strings.HasPrefix(imp, module) || imp+"/" == module {
				continue
			}
			lib := library(imp)
			if lib == "" {
				// The system interface of the standard library's own makers.
				if strings.HasPrefix(imp, "golang.org/x/sys/") {
					continue
				}
				t.Errorf("%s imports %s, which has no owner", f.path, imp)
				continue
			}
			ok := f.test || slices.ContainsFunc(owners[lib], func(o string) bool { return matches(o, f.dir) })
			if !ok {
				t.Errorf("%s imports %s, which belongs to %v", f.path, imp, owners[lib])
			}
		}
	}
}

func library(imp string) string {
	for lib := range owners {
		if imp == lib || strings.HasPrefix(imp, lib+"/") {
			return lib
		}
	}
	return ""
}

// TestNoInit holds that nothing is wired by being linked. The two op tables
// fill themselves in init because their rows refer to code that looks rows up,
// and Go's initialization order allows nothing else.
func TestNoInit(t *testing.T) {
	for _, f := range source(t) {
		if f.dir == "compiler/core" || f.path == "compiler/onnx/op.go" {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// unfinished matches words that a release must not hold, spelt so that this
// file does not hold them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b|(?i)not ` + `implemented|un` + `implemented`)

// TestFinished holds that no source admits to be unfinished.
func TestFinished(t *testing.T) {
	for _, f := range source(t) {
		for i, line := range strings.Split(string(f.src), "\n") {
			if w := unfinished.FindString(line); w != "" {
				t.Errorf("%s:%d holds %q", f.path, i+1, w)
			}
		}
	}
}

// TestPackagesIntroduceThemselves holds that each package says what it is for.
func TestPackagesIntroduceThemselves(t *testing.T) {
	doc, seen := map[string]bool{}, map[string]string{}
	for _, f := range source(t) {
		if f.test {
			continue
		}
		seen[f.dir] = f.ast.Name.Name
		if f.ast.Doc != nil && strings.Contains(f.ast.Doc.Text(), " ") {
			doc[f.dir] = true
		}
	}
	for dir, name := range seen {
		if !doc[dir] {
			t.Errorf("package %s has no package comment", dir)
		}
		if slices.Contains([]string{"util", "utils", "helpers", "common", "types", "misc"}, name) {
			t.Errorf("package %s has a name that says nothing", dir)
		}
	}
}

// maxLines is where a file has become two; generated ones are exempt.
const maxLines = 700

func TestFileSize(t *testing.T) {
	for _, f := range source(t) {
		if n := strings.Count(string(f.src), "\n"); n > maxLines && !ast.IsGenerated(f.ast) {
			t.Errorf("%s has %d lines, the limit is %d", f.path, n, maxLines)
		}
	}
}
