package dylib

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
)

const source = `
#include <stddef.h>
#include <string.h>
size_t count(const void *const *in) { return strlen(in[0]); }
int seven(int a, int b, int c, int d, int e, int f, int g) { return a + 2*b + 3*c + 4*d + 5*e + 6*f + 7*g; }
static int one(void) { return 1; }
static int two(void) { return 2; }
int (*const table[2])(void) = {one, two};
const void *get_table(void) { return table; }
const char *greet(void) { return "hello"; }
`

func build(t *testing.T) *Library {
	t.Helper()
	if !Supported {
		t.Skip("this build cannot load libraries")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	dir := t.TempDir()
	src, so := filepath.Join(dir, "t.c"), filepath.Join(dir, "t.so")
	if err := os.WriteFile(src, []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", so, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := Open(so)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func lookup(t *testing.T, l *Library, name string) Func {
	t.Helper()
	f, err := l.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCalls(t *testing.T) {
	l := build(t)
	// 1 + 4 + 9 + 16 + 25 + 36 + 49: the seventh argument goes over the stack.
	if got := lookup(t, l, "seven").Call(1, 2, 3, 4, 5, 6, 7); got != 140 {
		t.Errorf("seven: %d", got)
	}
	var p Pins
	defer p.Release()
	if got := lookup(t, l, "count").Call(p.Words([]uintptr{p.CString("four")})); got != 4 {
		t.Errorf("count: %d", got)
	}
	if got := String(lookup(t, l, "greet").Call()); got != "hello" {
		t.Errorf("greet: %q", got)
	}
	if got := FuncAt(lookup(t, l, "get_table").Call(), 1).Call(); got != 2 {
		t.Errorf("table: %d", got)
	}
	if _, err := l.Lookup("nothing"); !fault.Is(err, fault.BadModel) {
		t.Errorf("missing symbol: %v", err)
	}
}

func TestOpenMissing(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none.so")); !fault.Is(err, fault.Toolchain) {
		t.Errorf("got %v", err)
	}
}
