package dcp

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Chunk is a box of a tensor: where it begins in the logical tensor, and the
// bytes that hold it.
type Chunk struct {
	Offsets, Sizes []int
	// Data is the box as a tensor of Sizes inside its .distcp file.
	Data weights.Tensor
	// Sum is the CRC-32 of the storage that Data lies in, which begins at
	// Storage and has StorageBytes bytes, if HasSum is set.
	Sum                   uint32
	HasSum                bool
	Storage, StorageBytes int64
}

// Tensor is a logical tensor and the boxes that make it up.
type Tensor struct {
	Name         string // the fully qualified name, "model.layers.0.weight"
	DType        tensor.DType
	Shape        []int
	RequiresGrad bool
	Chunks       []Chunk
	// Path is planner_data: the keys under which the state dict nests the
	// tensor; nil if the file does not say.
	Path []torch.Value
	// Missing is the number of elements that no chunk holds.
	Missing int64
}

// Blob is a value that is no tensor.
type Blob struct {
	Name  string
	Path  []torch.Value
	Value torch.Value
}

// Checkpoint is an opened folder.
type Checkpoint struct {
	Tensors []Tensor // sorted by name
	Blobs   []Blob   // sorted by name
}

// Find looks up a tensor by name.
func (c *Checkpoint) Find(name string) *Tensor {
	for i := range c.Tensors {
		if c.Tensors[i].Name == name {
			return &c.Tensors[i]
		}
	}
	return nil
}

// check verifies that the chunks are boxes inside the tensor that do not
// overlap, and counts what they leave out.
func (t *Tensor) check() error {
	if _, err := weights.Extent(t.Shape, nil); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	held := int64(0)
	for _, c := range t.Chunks {
		n := int64(1)
		if len(c.Offsets) != len(t.Shape) || len(c.Sizes) != len(t.Shape) {
			return fmt.Errorf("tensor %q has %d dimensions, but a chunk at %v of size %v", t.Name, len(t.Shape), c.Offsets, c.Sizes)
		}
		for k := range c.Sizes {
			if c.Offsets[k] < 0 || c.Sizes[k] < 0 || c.Offsets[k] > t.Shape[k]-c.Sizes[k] {
				return fmt.Errorf("tensor %q of shape %v has a chunk at %v of size %v, which leaves it", t.Name, t.Shape, c.Offsets, c.Sizes)
			}
			n *= int64(c.Sizes[k])
		}
		if held += n; held > math.MaxInt64/2 {
			break
		}
	}
	if err := t.overlap(); err != nil {
		return err
	}
	whole := weights.Tensor{Shape: t.Shape}
	t.Missing = whole.Len() - held
	return nil
}

// overlap sweeps along the first dimension and compares the boxes that share a
// part of it.
func (t *Tensor) overlap() error {
	if len(t.Shape) == 0 {
		if len(t.Chunks) > 1 {
			return fmt.Errorf("tensor %q has no dimensions, but %d chunks", t.Name, len(t.Chunks))
		}
		return nil
	}
	order := slices.Clone(t.Chunks)
	slices.SortStableFunc(order, func(a, b Chunk) int { return a.Offsets[0] - b.Offsets[0] })
	var active []Chunk
	for _, c := range order {
		active = slices.DeleteFunc(active, func(a Chunk) bool { return a.Offsets[0]+a.Sizes[0] <= c.Offsets[0] })
		for _, a := range active {
			if intersect(a, c) {
				return fmt.Errorf("tensor %q has chunks at %v and %v that overlap", t.Name, a.Offsets, c.Offsets)
			}
		}
		active = append(active, c)
	}
	return nil
}

func intersect(a, b Chunk) bool {
	for k := range a.Offsets {
		if max(a.Offsets[k], b.Offsets[k]) >= min(a.Offsets[k]+a.Sizes[k], b.Offsets[k]+b.Sizes[k]) {
			return false
		}
	}
	return true
}
