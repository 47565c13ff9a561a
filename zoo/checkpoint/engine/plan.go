package engine

import (
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// A Span fills the next bytes of a slot: a run of a local array of a tensor,
// given bytes, or zeros.
type Span struct {
	// Tensor is where the elements come from; nil for Literal or zeros.
	Tensor *atom.Tensor
	// View is the local array that is written; Start and Len are elements of it
	// in row-major order.
	View       *geometry.View
	Start, Len int64
	DType      tensor.DType // of what is written

	Literal []byte
	Zeros   int64 // bytes
}

// Bytes is the size of what the span writes.
func (s *Span) Bytes() int64 {
	switch {
	case s.Tensor != nil:
		return s.Len * int64(s.DType.Size())
	case s.Literal != nil:
		return int64(len(s.Literal))
	}
	return s.Zeros
}

// All is the span of a whole tensor in another element type.
func All(t *atom.Tensor, d tensor.DType) Span {
	v := geometry.Whole(t.Shape)
	return Span{Tensor: t, View: &v, Len: t.Numel(), DType: d}
}

// A Slot is one tensor of an output file.
type Slot struct {
	Name  string // for the manifest
	DType tensor.DType
	Shape []int64
	Spans []Span
}

// A Layout is a planned file and what fills its slots.
type Layout struct {
	Plan  *weights.Plan
	Slots []Slot // one per Plan.Slots
}

// A File is an output file. Its layout is made when its turn comes, so that
// plans of many files take little memory.
type File struct {
	Name  string
	Bytes int64 // of tensor data, for progress and dry runs
	Build func() (*Layout, error)
}

// A Job is a set of files to write from one checkpoint.
type Job struct {
	Source *atom.Checkpoint
	Files  []File
	// Options describes what was asked for; a resumed run must ask the same.
	Options string
}

// Raw gives a blob as a tensor of bytes.
func Raw(c *atom.Checkpoint, blob int32) *atom.Tensor {
	n := c.Blobs[blob].Bytes
	shape := []int64{n}
	return &atom.Tensor{DType: tensor.U8, Shape: shape, Pieces: []atom.Piece{{
		View: geometry.Whole(shape), Frags: []atom.Frag{{Len: n, Blob: blob}},
	}}}
}

// Literal is a layout of a small file whose bytes are known.
func Literal(data []byte) *Layout {
	return &Layout{Plan: &weights.Plan{
		Size:  int64(len(data)),
		Parts: func([]uint32) ([]weights.Part, error) { return []weights.Part{{Data: data}}, nil },
	}}
}

// Verbatim is the layout of a byte-for-byte copy of a blob.
func Verbatim(c *atom.Checkpoint, blob int32, name string) *Layout {
	n := c.Blobs[blob].Bytes
	return &Layout{
		Plan:  &weights.Plan{Size: n, Slots: []weights.Slot{{Name: name, Bytes: n}}},
		Slots: []Slot{{Name: "", DType: tensor.U8, Shape: []int64{n}, Spans: []Span{All(Raw(c, blob), tensor.U8)}}},
	}
}
