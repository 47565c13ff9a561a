package shared

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDir(t *testing.T) {
	if _, err := os.Stat(filepath.Join(Root(t), "internal", "shared", "shared.go")); err != nil {
		t.Errorf("the module's folder: %v", err)
	}
	there := t.TempDir()
	if err := os.MkdirAll(filepath.Join(there, "models", "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LATHE_SHARED", there)
	if got, want := Dir(t, "models", "a"), filepath.Join(there, "models", "a"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	skipped := false
	t.Run("absent", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		Dir(t, "none")
	})
	if !skipped {
		t.Error("a folder that is absent is no reason to skip")
	}
}
