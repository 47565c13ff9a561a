package shared

import (
	"os"
	"path/filepath"
	"testing"
)

// Root is the folder of the module that the test is in.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = up
	}
}

// Dir is a folder or file of the reference material: below $LATHE_SHARED, or
// below the folder shared beside the module. The test is skipped if it is
// absent.
func Dir(t testing.TB, parts ...string) string {
	t.Helper()
	dir := os.Getenv("LATHE_SHARED")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared")
	}
	dir = filepath.Join(append([]string{dir}, parts...)...)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("shared material is absent (set LATHE_SHARED): %v", err)
	}
	return dir
}
