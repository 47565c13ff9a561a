package engine

import (
	"context"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// Reader reads logical tensors of a checkpoint in order. It serves one
// goroutine.
type Reader struct{ f *filler }

// NewReader makes a reader.
func NewReader(c *atom.Checkpoint) *Reader {
	s := &shared{ctx: context.Background(), c: c, handles: newHandles(c.Store), sums: newSums(nil)}
	return &Reader{newFiller(s)}
}

// Close releases the files.
func (r *Reader) Close() { r.f.handles.close() }

// Cursor is a tensor being read.
type Cursor struct {
	r    *Reader
	src  *source
	walk *geometry.Walker
	size int64
	pos  int64
	end  int64
}

// Open begins to read a tensor.
func (r *Reader) Open(t *atom.Tensor) *Cursor {
	s := All(t, t.DType)
	return &Cursor{r: r, src: newSource(t), walk: s.View.Walk(), size: int64(t.DType.Size()), end: t.Numel()}
}

// Next fills b with the next elements; fewer only at the end of the tensor.
func (c *Cursor) Next(b []byte) (int, error) {
	n := 0
	b = b[:int64(len(b))/c.size*c.size]
	for c.pos < c.end {
		k := min(c.end-c.pos, int64(len(b)-n)/c.size)
		if k == 0 {
			break
		}
		k, err := c.r.f.elements(c.src, c.walk, c.pos, k, b[n:])
		if err != nil {
			return n, err
		}
		c.pos += k
		n += int(k * c.size)
	}
	return n, nil
}

// Stream calls fn with the packed elements of a tensor, part by part. The bytes
// are valid until fn returns.
func (r *Reader) Stream(t *atom.Tensor, fn func(b []byte) error) error {
	c := r.Open(t)
	for {
		n, err := c.Next(r.f.buf)
		if err != nil || n == 0 {
			return err
		}
		if err := fn(r.f.buf[:n]); err != nil {
			return err
		}
	}
}

// Load reads a whole tensor.
func Load(c *atom.Checkpoint, t *atom.Tensor) ([]byte, error) {
	r := NewReader(c)
	defer r.Close()
	out := make([]byte, 0, t.Bytes())
	err := r.Stream(t, func(b []byte) error { out = append(out, b...); return nil })
	return out, err
}

// Piece reads a whole stored array of a tensor, padding included as zeros.
func (r *Reader) Piece(t *atom.Tensor, p atom.Piece) ([]byte, error) {
	own := &atom.Tensor{DType: t.DType, Shape: p.View.Local, Pieces: []atom.Piece{{View: geometry.Whole(p.View.Local), Frags: p.Frags, Stride: p.Stride}}}
	out := make([]byte, 0, own.Bytes())
	err := r.Stream(own, func(b []byte) error { out = append(out, b...); return nil })
	return out, err
}
