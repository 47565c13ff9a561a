package onnxfile

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/internal/shared"
)

// sharedFiles lists the files of the shared material below sub with a suffix.
func sharedFiles(t *testing.T, sub, suffix string) []string {
	t.Helper()
	dir := shared.Dir(t)
	var out []string
	err := filepath.WalkDir(filepath.Join(dir, sub), func(p string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, suffix) {
			out = append(out, p)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("no %s files below %s: %v", suffix, sub, err)
	}
	return out
}
