// Package torchfile plans torch files whose storages are filled from atoms.
//
// It must not know what the files mean.
package torchfile

import (
	"fmt"
	"io"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Fills says what goes into the storages that a plan made itself.
type Fills map[*torch.Storage][]engine.Span

// Tensor makes a tensor with a storage of its own that the spans fill.
func (f Fills) Tensor(d tensor.DType, shape []int64, spans ...engine.Span) *torch.Tensor {
	t := torch.NewTensor(d, atom.Ints(shape), nil)
	f[t.Storage] = spans
	return t
}

// Whole makes a tensor that holds an atom, in element type d.
func (f Fills) Whole(t *atom.Tensor, d tensor.DType) *torch.Tensor {
	return f.Tensor(d, t.Shape, engine.All(t, d))
}

// Layout plans a file. Storages that are not in f come from the files that the
// checkpoint was read from.
func Layout(c *atom.Checkpoint, root torch.Value, prefix string, f Fills) (*engine.Layout, error) {
	l, err := torch.NewPlan(root, torch.WriteOptions{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	names := map[*torch.Storage]torch.Named{}
	list, err := torch.Tensors(root)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if _, ok := names[n.Tensor.Storage]; !ok {
			names[n.Tensor.Storage] = n
		}
	}
	out := &engine.Layout{Plan: &l.Plan}
	for _, s := range l.Storages {
		slot := engine.Slot{DType: s.DType, Shape: []int64{s.Elements}}
		if n, ok := names[s]; ok {
			slot.Name = n.Path
			if int64(len(f[s])) > 0 {
				slot.Shape = atom.Dims(n.Tensor.Shape)
			}
		}
		if slot.Spans, err = spans(c, s, f); err != nil {
			return nil, err
		}
		out.Slots = append(out.Slots, slot)
	}
	return out, nil
}

func spans(c *atom.Checkpoint, s *torch.Storage, f Fills) ([]engine.Span, error) {
	if sp, ok := f[s]; ok {
		return sp, nil
	}
	if b, ok := c.Book.Known(s); ok {
		return []engine.Span{engine.All(engine.Raw(c, b), tensor.U8)}, nil
	}
	if s.Data == nil {
		return nil, fmt.Errorf("BUG: storage %s has no data", s.Key)
	}
	data := make([]byte, s.Bytes())
	if _, err := s.Data.ReadAt(data, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: storage %s: %w", s.File, s.Key, err)
	}
	return []engine.Span{{Literal: data}}, nil
}

// Copy plans a byte-for-byte copy of a file of the checkpoint's store. The blob
// of the whole file must have been entered by Enter.
func Copy(c *atom.Checkpoint, blob int32) func() (*engine.Layout, error) {
	return func() (*engine.Layout, error) {
		b := c.Blobs[blob]
		return engine.Verbatim(c, blob, b.File), nil
	}
}
