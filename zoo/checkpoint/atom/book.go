package atom

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// A Book enters the storages of torch files as blobs of a checkpoint.
type Book struct {
	c     *Checkpoint
	blobs map[*torch.Storage]int32
	sums  map[string]map[int64]recordSum
	whole map[string]int32
}

type recordSum struct {
	size int64
	sum  uint32
}

// NewBook starts a book and leaves it with the checkpoint.
func NewBook(c *Checkpoint) *Book {
	c.Book = &Book{c: c, blobs: map[*torch.Storage]int32{}, sums: map[string]map[int64]recordSum{}, whole: map[string]int32{}}
	return c.Book
}

// small is the size up to which the bytes of a storage are read when the file
// is opened: steps and other scalars, whose values decide what is written.
const small = 64

// Open reads a torch file of the checkpoint's store. Its large storages stay in
// the file.
func (b *Book) Open(name string) (torch.Value, error) {
	f, err := b.c.Store.Open(name)
	if err != nil {
		return nil, err
	}
	t, err := torch.Open(f, f.Size(), torch.Options{File: name})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, u := range t.Unknown {
		b.c.unknown(u.String())
	}
	if t.Format == torch.Zip {
		b.sums[name] = recordSums(f, f.Size())
	}
	// Every storage gets its number now: what is planned later may carry it.
	for _, st := range t.Storages {
		if st.Bytes() > small {
			b.Blob(st)
		}
	}
	keep := false
	for _, s := range t.Storages {
		switch {
		case s.Data == nil:
		case s.Bytes() <= small:
			data := make([]byte, s.Bytes())
			if _, err := s.Data.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
				f.Close()
				return nil, fmt.Errorf("%s: storage %s: %w", name, s.Key, err)
			}
			s.Data = bytes.NewReader(data)
		case s.Offset < 0:
			keep = true
		}
	}
	if keep {
		b.c.Keep(f)
		return t.Root, nil
	}
	return t.Root, f.Close()
}

func (c *Checkpoint) unknown(name string) {
	for _, u := range c.Unknown {
		if u == name {
			return
		}
	}
	c.Unknown = append(c.Unknown, name)
}

// recordSums lists the CRC-32 of the records of a zip by the place of their
// data; nothing if the directory cannot be read (the torch reader has the last
// word on whether the file is sound).
func recordSums(r io.ReaderAt, size int64) map[int64]recordSum {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil
	}
	m := make(map[int64]recordSum, len(z.File))
	for _, f := range z.File {
		if f.Method != zip.Store || f.UncompressedSize64 > math.MaxInt64 {
			continue
		}
		if off, err := f.DataOffset(); err == nil {
			m[off] = recordSum{int64(f.UncompressedSize64), f.CRC32}
		}
	}
	return m
}

// Known gives the number of a storage's blob if it has one.
func (b *Book) Known(s *torch.Storage) (int32, bool) {
	if b == nil {
		return 0, false
	}
	i, ok := b.blobs[s]
	return i, ok
}

// Blob gives the number of a storage's blob.
func (b *Book) Blob(s *torch.Storage) int32 {
	if i, ok := b.blobs[s]; ok {
		return i
	}
	blob := Blob{File: s.File, Offset: s.Offset, Bytes: s.Bytes()}
	if s.Offset < 0 {
		blob.Data = s.Data
	} else if sum, ok := b.sums[s.File][s.Offset]; ok && sum.size == blob.Bytes {
		blob.Sum, blob.HasSum = sum.sum, true
	}
	i := int32(len(b.c.Blobs))
	b.c.Blobs = append(b.c.Blobs, blob)
	b.blobs[s] = i
	return i
}

// Flat gives a run of elements of a one-dimensional tensor's storage as a
// fragment; it may reach into the part of the storage that the tensor does not
// show (stripped padding).
func (b *Book) Flat(t *torch.Tensor, start, n, at int64) (Frag, error) {
	size := int64(t.DType.Size())
	if len(t.Stride) == 1 && t.Stride[0] != 1 && t.Shape[0] > 1 {
		return Frag{}, fmt.Errorf("a flat partition has stride %d", t.Stride[0])
	}
	from := t.StorageOffset + start
	if start < 0 || n < 0 || (from+n)*size > t.Storage.Bytes() {
		return Frag{}, fmt.Errorf("elements %d to %d lie outside a partition of %d", start, start+n, t.Storage.Elements-t.StorageOffset)
	}
	return Frag{Start: at, Len: n, Blob: b.Blob(t.Storage), Offset: from * size}, nil
}

// Piece gives a whole torch tensor as the local array of a view.
func (b *Book) Piece(t *torch.Tensor, v geometry.View) Piece {
	n := geometry.Numel(v.Local)
	p := Piece{View: v, Frags: []Frag{{Len: n, Blob: b.Blob(t.Storage), Offset: t.StorageOffset * int64(t.DType.Size())}}}
	if !weights.Contiguous(t.Shape, t.Stride) {
		p.Stride = Dims(t.Stride)
	}
	return p
}

// Tensor gives a whole torch tensor as a logical tensor.
func (b *Book) Tensor(t *torch.Tensor) *Tensor {
	shape := Dims(t.Shape)
	return &Tensor{DType: t.DType, Shape: shape, Pieces: []Piece{b.Piece(t, geometry.Whole(shape))}}
}

// Dims converts a shape.
func Dims(shape []int) []int64 {
	out := make([]int64, len(shape))
	for i, d := range shape {
		out[i] = int64(d)
	}
	return out
}

// Ints converts a shape.
func Ints(shape []int64) []int {
	out := make([]int, len(shape))
	for i, d := range shape {
		out[i] = int(d)
	}
	return out
}

// File enters a whole file as a blob, to copy it byte for byte.
func (b *Book) File(name string) (int32, error) {
	if i, ok := b.whole[name]; ok {
		return i, nil
	}
	info, err := b.c.Store.Stat(name)
	if err != nil {
		return 0, err
	}
	b.c.Blobs = append(b.c.Blobs, Blob{File: name, Bytes: info.Size})
	b.whole[name] = int32(len(b.c.Blobs) - 1)
	return b.whole[name], nil
}
