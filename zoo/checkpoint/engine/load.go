package engine

import (
	"context"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
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

// Stream calls fn with the packed elements of a tensor, part by part. The bytes
// are valid until fn returns.
func (r *Reader) Stream(t *atom.Tensor, fn func(b []byte) error) error {
	s := All(t, t.DType)
	src, walk := newSource(t), s.View.Walk()
	size := int64(t.DType.Size())
	for pos, n := int64(0), t.Numel(); pos < n; {
		k := min(n-pos, int64(len(r.f.buf))/size)
		k, err := r.f.elements(src, walk, pos, k, r.f.buf)
		if err != nil {
			return err
		}
		if err := fn(r.f.buf[:k*size]); err != nil {
			return err
		}
		pos += k
	}
	return nil
}

// Load reads a whole tensor.
func Load(c *atom.Checkpoint, t *atom.Tensor) ([]byte, error) {
	r := NewReader(c)
	defer r.Close()
	out := make([]byte, 0, t.Bytes())
	err := r.Stream(t, func(b []byte) error { out = append(out, b...); return nil })
	return out, err
}
