package torch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// shared is a folder of the reference material; the test is skipped aloud
// where it is absent.
func shared(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("LATHE_SHARED")
	if dir == "" {
		root, err := filepath.Abs(".")
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			up := filepath.Dir(root)
			if up == root {
				t.Fatal("no go.mod above the test")
			}
			root = up
		}
		dir = filepath.Join(root, "..", "shared")
	}
	dir = filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIP: the reference folder %s is absent (set LATHE_SHARED)", name)
	}
	return dir
}

func store(t testing.TB, dir string) *weights.OS {
	t.Helper()
	s, err := weights.OpenOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openFile(t testing.TB, s weights.Store, name string) *File {
	t.Helper()
	f, c, err := OpenIn(s, name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return f
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// sum is the sha256 of the packed bytes of a tensor.
func sum(t testing.TB, x *Tensor) string {
	t.Helper()
	w := x.Ref("")
	return sumReader(t, x.Reader(), w.Bytes())
}

func sumReader(t testing.TB, r io.ReaderAt, n int64) string {
	t.Helper()
	h := sha256.New()
	if m, err := io.Copy(h, io.NewSectionReader(r, 0, n)); err != nil || m != n {
		t.Fatalf("read %d of %d bytes: %v", m, n, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
