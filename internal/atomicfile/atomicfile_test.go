package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n []string
	for _, e := range es {
		n = append(n, e.Name())
	}
	return n
}

func TestWriteKeepsOldOnError(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	if err := WriteBytes(p, []byte("old")); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := Write(p, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if b, _ := os.ReadFile(p); string(b) != "old" {
		t.Errorf("content %q", b)
	}
	if n := names(t, dir); len(n) != 1 {
		t.Errorf("left behind: %v", n)
	}
}

func TestWriteDir(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "out")
	put := func(name string) func(string) error {
		return func(tmp string) error { return os.WriteFile(filepath.Join(tmp, name), nil, 0o666) }
	}
	if err := WriteDir(p, false, put("a")); err != nil {
		t.Fatal(err)
	}
	var exists *ExistsError
	if err := WriteDir(p, false, put("b")); !errors.As(err, &exists) {
		t.Fatalf("got %v", err)
	}
	if err := WriteDir(p, true, put("b")); err != nil {
		t.Fatal(err)
	}
	if n := names(t, p); len(n) != 1 || n[0] != "b" {
		t.Errorf("folder holds %v", n)
	}
	if n := names(t, dir); len(n) != 1 {
		t.Errorf("left behind: %v", n)
	}
}

func TestCleanupRemovesUnfinished(t *testing.T) {
	dir := t.TempDir()
	_ = WriteDir(filepath.Join(dir, "out"), false, func(tmp string) error {
		Cleanup()
		if n := names(t, dir); len(n) != 0 {
			t.Errorf("after cleanup: %v", n)
		}
		return errors.New("stop")
	})
}

func TestWriteErrorSentence(t *testing.T) {
	err := WriteBytes(filepath.Join(t.TempDir(), "no", "f"), nil)
	var we *WriteError
	if !errors.As(err, &we) || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if want := "cannot write " + we.Path + ": no such file or directory"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
