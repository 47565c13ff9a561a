package gguf

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
)

const (
	magic = "GGUF"
	// defaultAlignment holds where general.alignment is not set.
	defaultAlignment = 32
	// maxHeader bounds what is read before the tensors: vocabularies are a few
	// tens of megabytes.
	maxHeader = 1 << 29
	// maxItems bounds the number of entries, tensors and array items.
	maxItems = 1 << 24
	// maxString bounds one string.
	maxString = 1 << 26
	// maxNesting bounds arrays of arrays.
	maxNesting = 4
	// maxRank is GGML_MAX_DIMS.
	maxRank = 4
)

// Entry is one entry of the metadata. Value is a Go integer, float32, float64,
// bool or string, or []any of them.
type Entry struct {
	Key   string
	Value any
}

// Tensor is a tensor of the file. Shape is row-major: ggml's dimensions in
// reverse order.
type Tensor struct {
	Name   string
	Type   Type
	Shape  []int
	Offset int64 // in the file
	Bytes  int64
	file   string
}

// Plain is the tensor as a range of the file; false for quantised types.
func (t *Tensor) Plain() (weights.Tensor, bool) {
	d := types[t.Type].dtype
	return weights.Tensor{Name: t.Name, DType: d, Shape: t.Shape, File: t.file, Offset: t.Offset}, d != tensor.Invalid
}

// Raw is the bytes of the tensor, whatever its type, as a vector.
func (t *Tensor) Raw() weights.Tensor {
	return weights.Tensor{Name: t.Name, DType: tensor.U8, Shape: []int{int(t.Bytes)}, File: t.file, Offset: t.Offset}
}

// File is the header of a file.
type File struct {
	Version uint32
	Entries []Entry
	Tensors []Tensor
}

// Get looks up an entry of the metadata.
func (f *File) Get(key string) (any, bool) {
	for _, e := range f.Entries {
		if e.Key == key {
			return e.Value, true
		}
	}
	return nil, false
}

// Detect tells by the first bytes whether a file can be a GGUF file.
func Detect(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// Open reads the header. name is the file that the tensors refer to.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	return weights.OpenAs(r, size, name, open)
}

// OpenIn reads the header of a file of a store.
func OpenIn(s weights.Store, name string) (*File, error) {
	return weights.OpenIn(s, name, open)
}

// reader reads little-endian values and counts where it is.
type reader struct {
	r   *bufio.Reader
	pos int64
	end int64
	n   int // items read
	err error
}

var errTruncated = errors.New("file ends inside the GGUF header: it is truncated")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) take(n uint64) []byte {
	if r.err != nil {
		return make([]byte, min(n, 8))
	}
	if n > uint64(r.end-r.pos) {
		r.fail(errTruncated)
		return make([]byte, min(n, 8))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.r, b); err != nil {
		r.fail(errTruncated)
	}
	r.pos += int64(n)
	return b
}

func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) str() string {
	n := r.u64()
	if n > maxString {
		r.fail(fmt.Errorf("a string has %d bytes, more than the %d that are accepted", n, maxString))
		return ""
	}
	return string(r.take(n))
}

// count guards against headers that make more values than they have bytes.
func (r *reader) count() {
	if r.n++; r.n > maxItems {
		r.fail(fmt.Errorf("the header holds more than %d values", maxItems))
	}
}

// value reads a value of a numbered type.
func (r *reader) value(kind uint32, depth int) any {
	r.count()
	switch kind {
	case 0:
		return r.take(1)[0]
	case 1:
		return int8(r.take(1)[0])
	case 2:
		return binary.LittleEndian.Uint16(r.take(2))
	case 3:
		return int16(binary.LittleEndian.Uint16(r.take(2)))
	case 4:
		return r.u32()
	case 5:
		return int32(r.u32())
	case 6:
		return math.Float32frombits(r.u32())
	case 7:
		b := r.take(1)[0]
		if b > 1 {
			r.fail(fmt.Errorf("a bool has the value %d", b))
		}
		return b == 1
	case 8:
		return r.str()
	case 9:
		return r.array(depth)
	case 10:
		return r.u64()
	case 11:
		return int64(r.u64())
	case 12:
		return math.Float64frombits(r.u64())
	}
	r.fail(fmt.Errorf("metadata of type %d are unknown", kind))
	return nil
}

func (r *reader) array(depth int) any {
	kind, n := r.u32(), r.u64()
	switch {
	case depth >= maxNesting:
		r.fail(errors.New("arrays of the metadata are nested too deeply"))
	case n > uint64(r.end-r.pos): // every item takes a byte at least
		r.fail(errTruncated)
	}
	var out []any
	for i := uint64(0); i < n && r.err == nil; i++ {
		out = append(out, r.value(kind, depth+1))
	}
	return out
}

func open(rd io.ReaderAt, size int64, name string) (*File, error) {
	end := min(size, maxHeader)
	r := &reader{r: bufio.NewReaderSize(io.NewSectionReader(rd, 0, end), 1<<16), end: end}
	if string(r.take(4)) != magic {
		return nil, errors.New("file is not a GGUF file")
	}
	f := &File{Version: r.u32()}
	if f.Version != 2 && f.Version != 3 {
		return nil, fmt.Errorf("GGUF of version %d is not supported; 2 and 3 are (a big-endian file shows as a huge version)", f.Version)
	}
	tensors, entries := r.u64(), r.u64()
	if tensors > maxItems || entries > maxItems {
		return nil, fmt.Errorf("the header states %d tensors and %d entries, more than any model has", tensors, entries)
	}
	keys := map[string]bool{}
	for i := uint64(0); i < entries && r.err == nil; i++ {
		e := Entry{Key: r.str()}
		e.Value = r.value(r.u32(), 0)
		if keys[e.Key] {
			r.fail(fmt.Errorf("the metadata hold %q twice", e.Key))
		}
		keys[e.Key] = true
		f.Entries = append(f.Entries, e)
	}
	for i := uint64(0); i < tensors && r.err == nil; i++ {
		f.Tensors = append(f.Tensors, r.tensor(name))
	}
	if r.err != nil {
		return nil, r.err
	}
	return f, f.place(r.pos, size)
}

func (r *reader) tensor(file string) Tensor {
	r.count()
	t := Tensor{Name: r.str(), file: file}
	rank := r.u32()
	if rank > maxRank {
		r.fail(fmt.Errorf("tensor %q has %d dimensions, more than ggml's %d", t.Name, rank, maxRank))
		return t
	}
	t.Shape = make([]int, rank)
	for k := range t.Shape {
		d := r.u64()
		if d > math.MaxInt64/16 {
			r.fail(fmt.Errorf("tensor %q has a dimension of %d", t.Name, d))
			return t
		}
		t.Shape[len(t.Shape)-1-k] = int(d)
	}
	t.Type = Type(r.u32())
	off := r.u64()
	info, ok := types[t.Type]
	if r.err == nil && !ok {
		r.fail(fmt.Errorf("tensor %q has the type %d, which is unknown", t.Name, t.Type))
		return t
	}
	if _, err := weights.Extent(t.Shape, nil); err != nil {
		r.fail(fmt.Errorf("tensor %q: %w", t.Name, err))
		return t
	}
	if r.err != nil {
		return t
	}
	n := (&weights.Tensor{Shape: t.Shape}).Len()
	inner := int64(1)
	if rank > 0 {
		inner = int64(t.Shape[rank-1])
	}
	if inner%info.block != 0 {
		r.fail(fmt.Errorf("tensor %q: rows of %d elements are no whole blocks of %s, which have %d", t.Name, inner, t.Type, info.block))
	}
	if off > math.MaxInt64/2 {
		r.fail(fmt.Errorf("tensor %q is at %d, outside the file", t.Name, off))
	}
	t.Offset, t.Bytes = int64(off), n/info.block*info.bytes
	return t
}

// place turns offsets into positions and checks them.
func (f *File) place(headerEnd, size int64) error {
	align := int64(defaultAlignment)
	if v, ok := f.Get("general.alignment"); ok {
		a, ok := v.(uint32)
		if !ok || a == 0 || a%8 != 0 || a > 1<<20 {
			return fmt.Errorf("general.alignment is %v, which is no alignment", v)
		}
		align = int64(a)
	}
	base := (headerEnd + align - 1) / align * align
	names := map[string]bool{}
	order := make([]int, len(f.Tensors))
	for i := range f.Tensors {
		t := &f.Tensors[i]
		order[i] = i
		switch {
		case names[t.Name]:
			return fmt.Errorf("tensor %q is there twice", t.Name)
		case t.Offset%align != 0:
			return fmt.Errorf("tensor %q is at %d, which is not aligned to %d", t.Name, t.Offset, align)
		}
		names[t.Name] = true
		t.Offset += base
		if t.Offset > size || t.Bytes > size-t.Offset {
			return fmt.Errorf("tensor %q ends after the file: it is truncated", t.Name)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := f.Tensors[a], f.Tensors[b]
		switch {
		case x.Offset < y.Offset || x.Offset == y.Offset && x.Bytes < y.Bytes:
			return -1
		case x.Offset == y.Offset && x.Bytes == y.Bytes:
			return 0
		}
		return 1
	})
	end := int64(0)
	for _, i := range order {
		t := f.Tensors[i]
		if t.Bytes > 0 && t.Offset < end {
			return fmt.Errorf("tensor %q overlaps the one before it", t.Name)
		}
		end = max(end, t.Offset+t.Bytes)
	}
	return nil
}
