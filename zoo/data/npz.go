package data

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
)

// ReadNPZ reads every array of a NumPy archive, in the archive's order.
func ReadNPZ(b []byte) ([]Named, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	var all []Named
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("array %q: %w", name, err)
		}
		t, err := ReadNPY(io.LimitReader(r, maxUnpacked))
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("array %q: %w", name, err)
		}
		all = append(all, Named{name, t})
	}
	return all, nil
}

// WriteNPZ writes tensors as a NumPy archive without time stamps; compress
// packs them.
func WriteNPZ(w io.Writer, ts []Named, compress bool) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	method := zip.Store
	if compress {
		method = zip.Deflate
	}
	for i, t := range ts {
		name := t.Name
		if name == "" {
			name = fmt.Sprintf("arr_%d", i)
		}
		// A slash would make a folder and ".." a way out of one.
		name = strings.NewReplacer("/", "_", "\\", "_").Replace(name)
		f, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: method})
		if err != nil {
			return err
		}
		if err := WriteNPY(f, t.Tensor); err != nil {
			return err
		}
	}
	return z.Close()
}
