package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
)

// maxHeader is the limit of the reference implementation.
const maxHeader = 100_000_000

// metadataKey is the header entry that is no tensor.
const metadataKey = "__metadata__"

// dtypes lists the element types in the order of the reference implementation,
// which writes tensors by descending order so that all are aligned.
var dtypes = []struct {
	name  string
	dtype tensor.DType
}{
	{"BOOL", tensor.Bool},
	{"F4", tensor.F4E2M1},
	{"U8", tensor.U8},
	{"I8", tensor.I8},
	{"F8_E5M2", tensor.F8E5M2},
	{"F8_E4M3", tensor.F8E4M3FN},
	{"F8_E8M0", tensor.F8E8M0},
	{"F8_E4M3FNUZ", tensor.F8E4M3FNUZ},
	{"F8_E5M2FNUZ", tensor.F8E5M2FNUZ},
	{"I16", tensor.I16},
	{"U16", tensor.U16},
	{"F16", tensor.F16},
	{"BF16", tensor.BF16},
	{"I32", tensor.I32},
	{"U32", tensor.U32},
	{"F32", tensor.F32},
	{"C64", tensor.C64},
	{"F64", tensor.F64},
	{"I64", tensor.I64},
	{"U64", tensor.U64},
}

// rank is the place of an element type in dtypes; -1 if the format lacks it.
func rank(d tensor.DType) int {
	for i, x := range dtypes {
		if x.dtype == d {
			return i
		}
	}
	return -1
}

func dtypeByName(name string) (tensor.DType, bool) {
	for _, x := range dtypes {
		if x.name == name {
			return x.dtype, true
		}
	}
	return tensor.Invalid, false
}

// DTypeName is the format's name of an element type; empty if it has none.
func DTypeName(d tensor.DType) string {
	if i := rank(d); i >= 0 {
		return dtypes[i].name
	}
	return ""
}

// File is the header of a file: its tensors in the order of their data.
type File struct {
	Tensors  []weights.Tensor
	Metadata map[string]string
}

// Find looks up a tensor by name.
func (f *File) Find(name string) (weights.Tensor, bool) {
	for _, t := range f.Tensors {
		if t.Name == name {
			return t, true
		}
	}
	return weights.Tensor{}, false
}

// Detect tells by the first bytes whether a file can be a safetensors file.
func Detect(head []byte) bool {
	return len(head) >= 9 && binary.LittleEndian.Uint64(head) <= maxHeader && head[8] == '{'
}

// Open reads the header. name is the file that the tensors refer to.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	return weights.OpenAs(r, size, name, open)
}

// OpenIn reads the header of a file of a store.
func OpenIn(s weights.Store, name string) (*File, error) {
	return weights.OpenIn(s, name, open)
}

func open(r io.ReaderAt, size int64, name string) (*File, error) {
	var head [8]byte
	if size < 8 {
		return nil, fmt.Errorf("file of %d bytes is too short for a safetensors header", size)
	}
	if err := weights.ReadFull(r, head[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	switch {
	case n > maxHeader:
		return nil, fmt.Errorf("file is not safetensors: its header would have %d bytes, more than %d", n, maxHeader)
	case int64(n) > size-8:
		return nil, fmt.Errorf("the header has %d bytes, but the file ends after %d: it is truncated", n, size-8)
	}
	b := make([]byte, n)
	if err := weights.ReadFull(r, b, 8); err != nil {
		return nil, err
	}
	f, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	base := 8 + int64(n)
	for i := range f.Tensors {
		f.Tensors[i].Offset += base
		f.Tensors[i].File = name
	}
	return f, f.check(base, size)
}

// check verifies that the tensors fill the file without gap or overlap, as the
// reference implementation demands.
func (f *File) check(base, size int64) error {
	slices.SortStableFunc(f.Tensors, func(a, b weights.Tensor) int {
		switch {
		case a.Offset != b.Offset:
			if a.Offset < b.Offset {
				return -1
			}
			return 1
		case a.Bytes() != b.Bytes(): // empty tensors first
			if a.Bytes() < b.Bytes() {
				return -1
			}
			return 1
		}
		return 0
	})
	end := base
	for _, t := range f.Tensors {
		switch {
		case t.Offset < end:
			return fmt.Errorf("tensor %q overlaps the one before it", t.Name)
		case t.Offset > end:
			return fmt.Errorf("%d bytes before tensor %q belong to no tensor", t.Offset-end, t.Name)
		}
		end += t.Bytes()
		if end > size {
			return fmt.Errorf("tensor %q ends %d bytes after the file: it is truncated", t.Name, end-size)
		}
	}
	if end != size {
		return fmt.Errorf("%d bytes at the end of the file belong to no tensor", size-end)
	}
	return nil
}

// parseHeader reads the JSON by tokens, since encoding/json keeps the last of
// two equal keys without a word.
func parseHeader(b []byte) (*File, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("the header is not UTF-8")
	}
	if len(b) == 0 || b[0] != '{' {
		return nil, errors.New("the header does not begin with {")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	f := &File{}
	seen := map[string]bool{}
	err := object(d, func(key string) error {
		if seen[key] {
			return fmt.Errorf("the header holds %q twice", key)
		}
		seen[key] = true
		if key == metadataKey {
			return f.readMetadata(d)
		}
		t, err := readTensor(d, key)
		f.Tensors = append(f.Tensors, t)
		return err
	})
	if err != nil {
		return nil, headerError(err)
	}
	if rest := bytes.TrimLeft(b[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, errors.New("the header goes on after its end")
	}
	return f, nil
}

func headerError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the header is not valid JSON: %w", err)
	}
	return err
}

// object calls fn for each key of the next object.
func object(d *json.Decoder, fn func(key string) error) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return errors.New("the header holds something else where an object belongs")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("the header has a key that is no string")
		}
		if err := fn(key); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func (f *File) readMetadata(d *json.Decoder) error {
	f.Metadata = map[string]string{}
	return object(d, func(key string) error {
		var v string
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("metadata entry %q is not a string: %w", key, err)
		}
		if _, ok := f.Metadata[key]; ok {
			return fmt.Errorf("the metadata hold %q twice", key)
		}
		f.Metadata[key] = v
		return nil
	})
}

// readTensor reads {"dtype": …, "shape": […], "data_offsets": [begin, end]}.
// Its Offset is relative to the data.
func readTensor(d *json.Decoder, name string) (weights.Tensor, error) {
	t := weights.Tensor{Name: name}
	var dtype string
	var offsets []int64
	fields := map[string]any{"dtype": &dtype, "shape": &t.Shape, "data_offsets": &offsets}
	err := object(d, func(key string) error {
		into := fields[key]
		if into == nil {
			return fmt.Errorf("tensor %q has the field %q, which is unknown or there twice", name, key)
		}
		delete(fields, key)
		if err := d.Decode(into); err != nil {
			return fmt.Errorf("tensor %q: field %q: %w", name, key, err)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	if len(fields) > 0 || len(offsets) != 2 || t.Shape == nil {
		return t, fmt.Errorf("tensor %q lacks its dtype, shape or data_offsets", name)
	}
	var ok bool
	if t.DType, ok = dtypeByName(dtype); !ok {
		return t, fmt.Errorf("tensor %q has the element type %q, which is not supported", name, dtype)
	}
	if err := checkShape(t.Shape); err != nil {
		return t, fmt.Errorf("tensor %q: %w", name, err)
	}
	t.Offset = offsets[0]
	switch {
	case offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > 1<<62:
		return t, fmt.Errorf("tensor %q has the data offsets %v, which are no range", name, offsets)
	case t.Bytes() != offsets[1]-offsets[0]:
		return t, fmt.Errorf("tensor %q of %s%v takes %d bytes, but its data offsets give %d", name, dtype, t.Shape, t.Bytes(), offsets[1]-offsets[0])
	}
	return t, nil
}

// checkShape refuses dimensions whose product does not fit.
func checkShape(shape []int) error {
	_, err := weights.Extent(shape, nil)
	if err == nil && slices.Contains(shape, 0) {
		// Extent stops at a zero; the others must be sane too.
		for _, d := range shape {
			if d < 0 {
				return fmt.Errorf("shape %v has a negative dimension", shape)
			}
		}
	}
	return err
}
