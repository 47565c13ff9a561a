package atom

import (
	"fmt"
	"io"
	"slices"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// A Blob is a run of bytes in a file that was written as one: a storage of a
// torch file, the data of a safetensors file.
type Blob struct {
	File   string // in the checkpoint's store
	Offset int64
	Bytes  int64
	// Sum is the CRC-32 that the file gives for the bytes, if HasSum is set.
	Sum    uint32
	HasSum bool
	// Data reads the bytes where they do not lie in the file as they are
	// (compressed records); else nil.
	Data io.ReaderAt
}

// A Frag says where a run of a local array's elements lies.
type Frag struct {
	Start, Len int64 // elements of the local array, row-major
	Blob       int32
	Offset     int64 // bytes in the blob
}

// A Piece is a stored array that holds a part of a logical tensor.
type Piece struct {
	View  geometry.View
	Frags []Frag // sorted, no two overlap
	// Stride is set for an array that is not stored row-major: elements per
	// dimension of View.Local, counted from the only frag's offset.
	Stride []int64
}

// A Tensor is one logical tensor.
type Tensor struct {
	DType tensor.DType
	Shape []int64
	// Pieces cover the tensor, each element once.
	Pieces []Piece
	// Copies are further pieces that hold what Pieces hold already.
	Copies []Piece
	// Average asks for the mean of Pieces and each of Copies instead of their
	// equality.
	Average bool
	// Delta, if set, gives a low-rank update that is added when the tensor is
	// read; DeltaName tells updates apart.
	Delta     func() (*Delta, error)
	DeltaName string
}

// A Delta is Scale times the product of B (Rows x Rank) and A (Rank x Cols), or
// its transpose, to be added to a matrix.
type Delta struct {
	A, B       []float32
	Rank       int
	Rows, Cols int64
	Scale      float64
	Transposed bool
}

// At is the update of the element at a row-major position of the matrix.
func (d *Delta) At(pos int64) float64 {
	i, j := pos/d.Cols, pos%d.Cols
	if d.Transposed {
		i, j = pos%d.Rows, pos/d.Rows
	}
	sum := 0.0
	for k := range d.Rank {
		sum += float64(d.B[i*int64(d.Rank)+int64(k)]) * float64(d.A[int64(k)*d.Cols+j])
	}
	return sum * d.Scale
}

// Numel is the number of elements.
func (t *Tensor) Numel() int64 { return geometry.Numel(t.Shape) }

// Bytes is the packed size.
func (t *Tensor) Bytes() int64 { return t.Numel() * int64(t.DType.Size()) }

// Check verifies that the pieces hold every element once, as far as volumes
// tell, that fragments fill their arrays and that nothing leaves its blob.
func (t *Tensor) Check(blobs []Blob) error {
	vol := int64(0)
	for i := range t.Pieces {
		if err := t.checkPiece(&t.Pieces[i], blobs); err != nil {
			return err
		}
		for _, p := range t.Pieces[i].View.Parts {
			vol += geometry.Numel(p.Size)
		}
	}
	if n := t.Numel(); vol != n {
		return fmt.Errorf("its shards hold %d of %d elements", vol, n)
	}
	for i := range t.Copies {
		if err := t.checkPiece(&t.Copies[i], blobs); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tensor) checkPiece(p *Piece, blobs []Blob) error {
	if err := p.View.Check(); err != nil {
		return err
	}
	if !slices.Equal(p.View.Global, t.Shape) {
		return fmt.Errorf("a shard belongs to shape %v, not to %v", p.View.Global, t.Shape)
	}
	if p.Stride != nil {
		if len(p.Frags) != 1 {
			return fmt.Errorf("a strided shard has %d fragments", len(p.Frags))
		}
		return nil
	}
	end, size := int64(0), int64(t.DType.Size())
	for _, f := range p.Frags {
		if f.Start != end {
			return fmt.Errorf("elements %d to %d of a shard of shape %v are missing", end, f.Start, p.View.Local)
		}
		end += f.Len
		if b := blobs[f.Blob]; f.Offset < 0 || f.Offset+f.Len*size > b.Bytes {
			return fmt.Errorf("%s: a fragment of %d elements ends after its storage of %d bytes", b.File, f.Len, b.Bytes)
		}
	}
	if n := geometry.Numel(p.View.Local); end < n {
		return fmt.Errorf("elements %d to %d of a shard of shape %v are missing", end, n, p.View.Local)
	}
	return nil
}

// Reshape gives the same elements another shape of equal size. Only tensors
// whose pieces are row-major runs of the whole can be reshaped.
func (t *Tensor) Reshape(shape []int64) (*Tensor, error) {
	if slices.Equal(shape, t.Shape) {
		return t, nil
	}
	if geometry.Numel(shape) != t.Numel() {
		return nil, fmt.Errorf("shape %v cannot be seen as %v", t.Shape, shape)
	}
	out := &Tensor{DType: t.DType, Shape: shape, Average: t.Average}
	for _, set := range []struct {
		from []Piece
		to   *[]Piece
	}{{t.Pieces, &out.Pieces}, {t.Copies, &out.Copies}} {
		for _, p := range set.from {
			if !p.View.IsWhole() || p.Stride != nil {
				return nil, fmt.Errorf("a sharded tensor of shape %v cannot be seen as %v", t.Shape, shape)
			}
			p.View = geometry.Whole(shape)
			*set.to = append(*set.to, p)
		}
	}
	return out, nil
}
