package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// checkOutput refuses, before any work, an output that is one of the inputs,
// that exists and may not be replaced, or that cannot be looked at.
func checkOutput(out string, force bool, inputs ...string) error {
	there, err := os.Stat(out)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Usage, "cannot write %s: %w", out, errors.Unwrap(err))
		}
		return nil
	}
	for _, in := range inputs {
		if info, err := os.Stat(in); err == nil && os.SameFile(info, there) {
			return fault.New(fault.Usage, "the output is the input: %s", out).Hint("an input is never overwritten; give another -o")
		}
	}
	if !force {
		return &atomicfile.ExistsError{Path: out}
	}
	return nil
}

// replaceableFolder holds that --force replaces a folder that lathe made, or an
// empty one, and not a file or somebody's home.
func replaceableFolder(out string, made func(dir string) bool) error {
	info, err := os.Stat(out)
	switch {
	case err != nil:
		return nil
	case !info.IsDir():
		return fault.New(fault.Usage, "%s is a file, what is written is a folder", out).Hint("give another -o")
	case made(out):
		return nil
	}
	if es, err := os.ReadDir(out); err == nil && len(es) == 0 {
		return nil
	}
	return fault.New(fault.Usage, "%s is a folder that lathe did not make", out).Hint("give another -o")
}

// holdsOutputs reports whether a folder has nothing but saved outputs.
func holdsOutputs(dir string) bool {
	es, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range es {
		if ok, _ := filepath.Match("output_*.pb", e.Name()); !ok || e.IsDir() {
			return false
		}
	}
	return true
}

// paths are the files that --input names.
func (in *inputFlags) paths() []string {
	var list []string
	for _, arg := range in.files {
		list = append(list, arg)
		if _, path, ok := strings.Cut(arg, "="); ok {
			list = append(list, path)
		}
	}
	return list
}
