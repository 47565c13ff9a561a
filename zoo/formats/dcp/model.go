package dcp

import (
	"errors"

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
}

// Tensor is a logical tensor and the boxes that make it up.
type Tensor struct {
	Name   string // the fully qualified name, "model.layers.0.weight"
	DType  tensor.DType
	Shape  []int
	Chunks []Chunk
	// Path is planner_data: the keys under which the state dict nests the
	// tensor; nil if the file does not say.
	Path []torch.Value
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

// Open reads the metadata of a folder and places every chunk. Boxes that
// overlap with different places, leave their tensor or leave a hole are errors.
func Open(s weights.Store, dir string) (*Checkpoint, error) {
	return nil, errors.New("folder has no .metadata file")
}

// Layout is a planned folder.
type Layout struct {
	Files    []FilePlan
	Metadata []byte
}

// FilePlan is one .distcp file; Chunk tells which chunk fills which slot.
type FilePlan struct {
	Name string
	weights.Plan
	Chunks []ChunkRef
}

// ChunkRef names a chunk of the checkpoint that is written.
type ChunkRef struct{ Tensor, Chunk int }

// NewPlan lays out a folder. Chunk.Data.File says in which file a chunk goes
// (empty: __0_0.distcp); slots are in that order.
func NewPlan(c *Checkpoint) (*Layout, error) {
	return nil, errors.New("no tensors")
}
