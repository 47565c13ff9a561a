package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Named is a tensor with the name that its file gives it, "" if it gives none.
type Named struct {
	Name   string
	Tensor *tensor.Tensor
}

// reader is one row of the table of formats.
type reader struct {
	name string
	exts []string
	read func(path string, b []byte, p *Preprocess) ([]Named, error)
}

// readers is the table of formats, found by the file's extension.
var readers = []reader{
	{"NumPy array", []string{".npy"}, func(_ string, b []byte, _ *Preprocess) ([]Named, error) { return one(ReadNPY(bytes.NewReader(b))) }},
	{"NumPy archive", []string{".npz"}, func(_ string, b []byte, _ *Preprocess) ([]Named, error) { return ReadNPZ(b) }},
	{"ONNX tensor", []string{".pb"}, func(_ string, b []byte, _ *Preprocess) ([]Named, error) { return one(ReadPB(b)) }},
	{"image", []string{".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}, func(_ string, b []byte, p *Preprocess) ([]Named, error) { return one(ReadImage(b, p)) }},
	{"IDX", []string{".idx", "-ubyte"}, func(_ string, b []byte, _ *Preprocess) ([]Named, error) { return one(ReadIDX(b)) }},
	{"CSV", []string{".csv"}, func(_ string, b []byte, _ *Preprocess) ([]Named, error) { return one(ReadCSV(b)) }},
}

func one(t *tensor.Tensor, err error) ([]Named, error) {
	if err != nil {
		return nil, err
	}
	return []Named{{Tensor: t}}, nil
}

// Read reads every tensor of a file, by its extension; a .gz one is unpacked.
// Images need a recipe; nil means pixels as they are, in NCHW order.
func Read(path string, p *Preprocess) ([]Named, error) {
	r, ok := readerFor(path)
	if !ok {
		return nil, fault.New(fault.BadModel, "no reader for %q files", filepath.Ext(path)).InFile(path).Hint("readable: %s", strings.Join(Extensions(), " "))
	}
	b, err := ReadBytes(path)
	if err != nil {
		return nil, err
	}
	ts, err := r.read(path, b, p)
	if err != nil {
		return nil, fault.New(fault.BadModel, "not a readable %s: %w", r.name, err).InFile(path)
	}
	return ts, nil
}

func readerFor(path string) (reader, bool) {
	name := strings.TrimSuffix(strings.ToLower(path), ".gz")
	for _, r := range readers {
		if slices.ContainsFunc(r.exts, func(e string) bool { return strings.HasSuffix(name, e) }) {
			return r, true
		}
	}
	return reader{}, false
}

// Readable reports whether the name's extension has a reader.
func Readable(path string) bool {
	_, ok := readerFor(path)
	return ok
}

// Extensions lists what Read accepts.
func Extensions() []string {
	var all []string
	for _, r := range readers {
		all = append(all, r.exts...)
	}
	return all
}

// maxUnpacked bounds what a .gz file may grow to: a small file must not fill
// the memory.
const maxUnpacked = 8 << 30

// ReadBytes reads a whole file and unpacks it if its name ends in .gz.
func ReadBytes(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot read: %w", pathCause(err)).InFile(path)
	}
	defer f.Close()
	if !strings.HasSuffix(strings.ToLower(path), ".gz") {
		b, err := io.ReadAll(f)
		if err != nil {
			return nil, fault.New(fault.BadModel, "cannot read: %w", pathCause(err)).InFile(path)
		}
		return b, nil
	}
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot unpack: %w", err).InFile(path)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	if err == nil && len(b) > maxUnpacked {
		err = fmt.Errorf("more than %d bytes", maxUnpacked)
	}
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot unpack: %w", err).InFile(path)
	}
	return b, nil
}

// pathCause drops the path that the system's error repeats.
func pathCause(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}
