package dcp

import (
	"fmt"
	"io"
	"slices"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Layout is a planned folder.
type Layout struct {
	Files []FilePlan // sorted by name
	// Metadata is the content of the .metadata file. It is written last: a
	// folder without it is no checkpoint.
	Metadata []byte
}

// FilePlan is one .distcp file; Chunks tells which chunk fills which slot.
type FilePlan struct {
	Name string
	weights.Plan
	Chunks []ChunkRef

	blobs []weights.Part
}

// ChunkRef names a chunk of the checkpoint that is written, by position.
type ChunkRef struct{ Tensor, Chunk int }

// firstFile takes the values, and the chunks that name no file.
const firstFile = "__0_0.distcp"

// itemAlign keeps the data of every item aligned in the file, too.
const itemAlign = 64

// The modules of the classes that the metadata are made of, since PyTorch 2.0.
const (
	metadataModule   = "torch.distributed.checkpoint.metadata"
	filesystemModule = "torch.distributed.checkpoint.filesystem"
)

// place is where an item was put.
type place struct {
	file           string
	offset, length int64
}

// builder lays out the files of a folder.
type builder struct {
	c      *Checkpoint
	files  map[string]*FilePlan
	chunks map[ChunkRef]place
	blobs  []place
}

// NewPlan lays out a folder. Chunk.Data.File says in which file a chunk goes
// (empty: __0_0.distcp); nothing else of Data is used. Slots are in the order
// of tensors and chunks. Storages of blobs must have Data.
func NewPlan(c *Checkpoint) (*Layout, error) {
	b := &builder{c: c, files: map[string]*FilePlan{}, chunks: map[ChunkRef]place{}}
	for i := range c.Tensors {
		t := c.Tensors[i]
		if torch.DTypeName(t.DType) == "" {
			return nil, fmt.Errorf("tensor %q: torch has no element type %s", t.Name, t.DType)
		}
		if err := t.check(); err != nil {
			return nil, err
		}
		for k := range t.Chunks {
			if err := b.addChunk(ChunkRef{i, k}); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
			}
		}
	}
	for i := range c.Blobs {
		if err := b.addBlob(&c.Blobs[i]); err != nil {
			return nil, fmt.Errorf("value %q: %w", c.Blobs[i].Name, err)
		}
	}
	meta, err := b.metadata()
	if err != nil {
		return nil, err
	}
	l := &Layout{Metadata: meta}
	for _, f := range b.files {
		l.Files = append(l.Files, *f)
	}
	slices.SortFunc(l.Files, func(x, y FilePlan) int {
		if x.Name < y.Name {
			return -1
		}
		return 1
	})
	return l, nil
}

func (b *builder) file(name string) (*FilePlan, error) {
	if name == "" {
		name = firstFile
	}
	if err := weights.CheckName(name); err != nil {
		return nil, err
	}
	f := b.files[name]
	if f == nil {
		f = &FilePlan{Name: name}
		f.Sums = true
		f.Parts = func(sums []uint32) ([]weights.Part, error) { return b.parts(f, sums) }
		b.files[name] = f
	}
	return f, nil
}

func (b *builder) addChunk(ref ChunkRef) error {
	t := &b.c.Tensors[ref.Tensor]
	ch := &t.Chunks[ref.Chunk]
	f, err := b.file(ch.Data.File)
	if err != nil {
		return err
	}
	l, err := b.c.planChunk(ref)
	if err != nil {
		return err
	}
	at := align(f.Size)
	s := l.Slots[0]
	s.Name, s.Offset = t.Name, s.Offset+at
	f.Slots = append(f.Slots, s)
	f.Chunks = append(f.Chunks, ref)
	f.Size = at + l.Size
	b.chunks[ref] = place{f.Name, at, l.Size}
	return nil
}

// planChunk lays out one item. It is cheap enough to be done again when the
// file is closed, which saves keeping the heads of all items.
func (c *Checkpoint) planChunk(ref ChunkRef) (*torch.Layout, error) {
	t := &c.Tensors[ref.Tensor]
	return torch.NewPlan(torch.NewTensor(t.DType, t.Chunks[ref.Chunk].Sizes, nil), torch.WriteOptions{})
}

// parts is everything in a file but the data of the chunks.
func (b *builder) parts(f *FilePlan, sums []uint32) ([]weights.Part, error) {
	out := slices.Clone(f.blobs)
	for i, ref := range f.Chunks {
		l, err := b.c.planChunk(ref)
		if err != nil {
			return nil, err
		}
		more, err := l.Parts(sums[i : i+1])
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			p.Offset += b.chunks[ref].offset
			out = append(out, p)
		}
	}
	return out, nil
}

func align(n int64) int64 { return (n + itemAlign - 1) / itemAlign * itemAlign }

// memory is a small file that is kept whole.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}

func (b *builder) addBlob(x *Blob) error {
	f, err := b.file("")
	if err != nil {
		return err
	}
	l, err := torch.NewPlan(x.Value, torch.WriteOptions{})
	if err != nil {
		return err
	}
	if l.Size > maxBlob {
		return fmt.Errorf("it takes %d bytes, more than the %d of a value that is no tensor", l.Size, maxBlob)
	}
	data := make(memory, l.Size)
	if err := l.WriteData(data); err != nil {
		return err
	}
	at := align(f.Size)
	f.blobs = append(f.blobs, weights.Part{Offset: at, Data: data})
	f.Size = at + l.Size
	b.blobs = append(b.blobs, place{f.Name, at, l.Size})
	return nil
}

// metadata pickles the Metadata object as PyTorch does, protocol 4.
func (b *builder) metadata() ([]byte, error) {
	state, planner, storage := torch.NewDict(), torch.NewDict(), torch.NewDict()
	layout := &torch.Object{
		Class: &torch.Class{Module: "torch.serialization", Name: "_get_layout"}, Args: torch.NewTuple("torch.strided"),
	}
	// The enum by value: its member 0 is TORCH_CONTIGUOUS_FORMAT.
	format := &torch.Object{
		Class: &torch.Class{Module: metadataModule, Name: "_MEM_FORMAT_ENCODING"}, Args: torch.NewTuple(int64(0)),
	}
	for i, t := range b.c.Tensors {
		if _, twice := state.Get(t.Name); twice {
			return nil, fmt.Errorf("%q is there twice", t.Name)
		}
		props := torch.NewObject(metadataModule, "TensorProperties", nil)
		props.State, props.HasState = torch.NewTuple(torch.DTypeClass(t.DType), layout, t.RequiresGrad, format, false), true
		chunks := torch.NewList()
		for k, ch := range t.Chunks {
			offsets := torch.Size(ch.Offsets)
			chunks.Items = append(chunks.Items, torch.NewObject(metadataModule, "ChunkStorageMetadata",
				torch.NewDict("offsets", offsets, "sizes", torch.Size(ch.Sizes))))
			storage.Set(index(t.Name, offsets, int64(k)), b.chunks[ChunkRef{i, k}].info())
		}
		state.Set(t.Name, torch.NewObject(metadataModule, "TensorStorageMetadata",
			torch.NewDict("properties", props, "size", torch.Size(t.Shape), "chunks", chunks)))
		planner.Set(t.Name, path(t.Path, t.Name))
	}
	for i, x := range b.c.Blobs {
		if _, twice := state.Get(x.Name); twice {
			return nil, fmt.Errorf("%q is there twice", x.Name)
		}
		state.Set(x.Name, torch.NewObject(metadataModule, "BytesStorageMetadata", nil))
		storage.Set(index(x.Name, nil, nil), b.blobs[i].info())
		planner.Set(x.Name, path(x.Path, x.Name))
	}
	raw, _, err := torch.Pickle(torch.NewObject(metadataModule, "Metadata", torch.NewDict(
		"state_dict_metadata", state, "planner_data", planner, "storage_data", storage, "storage_meta", nil, "version", nil)), 4)
	return raw, err
}

func path(p []torch.Value, name string) *torch.Tuple {
	if p == nil {
		return torch.NewTuple(name)
	}
	return torch.NewTuple(p...)
}

func index(name string, offset, i torch.Value) *torch.Object {
	return torch.NewObject(metadataModule, "MetadataIndex", torch.NewDict("fqn", name, "offset", offset, "index", i))
}

func (p place) info() *torch.Object {
	return torch.NewObject(filesystemModule, "_StorageInfo",
		torch.NewDict("relative_path", p.file, "offset", p.offset, "length", p.length))
}
