package npz

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// File is an opened .npy or .npz file: its arrays in the order of the file, and
// named without the ending .npy. An .npy file holds one array without a name.
type File struct {
	Tensors []weights.Tensor
}

// Open reads the headers. name is the file that the tensors refer to. Arrays
// that are compressed (numpy.savez_compressed) cannot be read by ranges and are
// refused.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	return weights.OpenAs(r, size, name, open)
}

// OpenIn reads the headers of a file of a store.
func OpenIn(s weights.Store, name string) (*File, error) {
	return weights.OpenIn(s, name, open)
}

func open(r io.ReaderAt, size int64, name string) (*File, error) {
	head := make([]byte, min(size, 6))
	if err := weights.ReadFull(r, head, 0); err != nil {
		return nil, err
	}
	if Detect(head) {
		t, err := readHeader(r, 0, size)
		if err != nil {
			return nil, err
		}
		if extra := size - t.Offset - t.Bytes(); extra > 0 {
			return nil, fmt.Errorf("%d bytes follow the array", extra)
		}
		t.File = name
		return &File{[]weights.Tensor{t}}, nil
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("file is neither .npy nor .npz: %w", err)
	}
	f := &File{}
	seen := map[string]bool{}
	var ends [][2]int64
	for _, e := range z.File {
		t, err := member(r, e, size)
		if err != nil {
			return nil, fmt.Errorf("array %q: %w", e.Name, err)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("array %q is there twice", t.Name)
		}
		seen[t.Name] = true
		t.File = name
		f.Tensors = append(f.Tensors, t)
		ends = append(ends, [2]int64{t.Offset, t.Offset + t.Bytes()})
	}
	slices.SortFunc(ends, func(a, b [2]int64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	for i := 1; i < len(ends); i++ {
		if ends[i][0] < ends[i-1][1] {
			return nil, errors.New("two arrays share bytes of the zip")
		}
	}
	return f, nil
}

// member reads the header of one array of the zip.
func member(r io.ReaderAt, e *zip.File, size int64) (weights.Tensor, error) {
	var t weights.Tensor
	name, ok := strings.CutSuffix(e.Name, ".npy")
	switch {
	case !ok:
		return t, errors.New("it is not named .npy as NumPy's arrays are")
	case e.Flags&1 != 0:
		return t, errors.New("it is encrypted")
	case e.Method != zip.Store:
		return t, errors.New("it is compressed and cannot be read by ranges: save it with numpy.savez, not savez_compressed")
	case e.CompressedSize64 != e.UncompressedSize64:
		return t, errors.New("its two sizes differ")
	}
	if err := weights.CheckName(e.Name); err != nil {
		return t, err
	}
	off, err := e.DataOffset()
	if err != nil {
		return t, err
	}
	n := e.UncompressedSize64
	if off < 0 || off > size || n > uint64(size-off) {
		return t, errors.New("it ends after the file: it is truncated")
	}
	t, err = readHeader(r, off, off+int64(n))
	t.Name = name
	return t, err
}
