package data

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// Write writes tensors to one file by its extension: .npz takes any number,
// .npy and .pb one.
func Write(path string, ts []Named) error {
	ext := strings.ToLower(filepath.Ext(path))
	if ext == ".npz" {
		return atomicfile.Write(path, func(w io.Writer) error { return WriteNPZ(w, ts, true) })
	}
	if len(ts) != 1 {
		return fault.New(fault.Usage, "%d tensors do not fit into one %s file", len(ts), ext).InFile(path).Hint("write a .npz file or a folder")
	}
	switch ext {
	case ".npy":
		return atomicfile.Write(path, func(w io.Writer) error { return WriteNPY(w, ts[0].Tensor) })
	case ".pb":
		return atomicfile.Write(path, func(w io.Writer) error { return WritePB(w, ts[0].Name, ts[0].Tensor) })
	}
	return fault.New(fault.Usage, "no writer for %q files", ext).InFile(path).Hint("use .npy, .npz or .pb")
}

// WriteSet writes tensors as a recorded test data set: kind_0.pb, kind_1.pb, …
func WriteSet(dir, kind string, ts []Named) error {
	for i, t := range ts {
		if err := Write(filepath.Join(dir, fmt.Sprintf("%s_%d.pb", kind, i)), ts[i:i+1]); err != nil {
			return fmt.Errorf("%q: %w", t.Name, err)
		}
	}
	return nil
}
