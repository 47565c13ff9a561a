package dylib

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestCallback holds that C's negative and positive ints arrive as they are, in
// order, and that C goes on after the call.
func TestCallback(t *testing.T) {
	build(t) // skips where there is no compiler
	const text = `int twice(void (*f)(int, int), int a) { f(a, -1); f(-a, 1); return a + 1; }`
	dir := t.TempDir()
	src, so := filepath.Join(dir, "c.c"), filepath.Join(dir, "c.so")
	if err := os.WriteFile(src, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", so, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := Open(so)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got [][2]int32
	f := Callback(func(a, b int32) { got = append(got, [2]int32{a, b}) })
	if r := lookup(t, l, "twice").Call(uintptr(f), 7); r != 8 {
		t.Errorf("gave %d, want 8", r)
	}
	if want := [][2]int32{{7, -1}, {-7, 1}}; !slices.Equal(got, want) {
		t.Errorf("called with %v, want %v", got, want)
	}
}
