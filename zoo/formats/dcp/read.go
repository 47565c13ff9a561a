package dcp

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// MetadataName is the file that makes a folder a distributed checkpoint.
const MetadataName = ".metadata"

const (
	maxMetadata = 1 << 30
	// maxValues lets half a million chunks be described.
	maxValues = 64 << 20
	// maxBlob bounds a value that is no tensor.
	maxBlob = 256 << 20
)

// Open reads the metadata of a folder and places every chunk. Boxes that
// overlap, leave their tensor or leave a hole are errors.
func Open(s weights.Store, dir string) (*Checkpoint, error) {
	c, err := OpenPartial(s, dir)
	if err != nil {
		return nil, err
	}
	for _, t := range c.Tensors {
		if t.Missing > 0 {
			return nil, fmt.Errorf("%s: %d of the elements of tensor %q are in no chunk", dir, t.Missing, t.Name)
		}
	}
	return c, nil
}

// OpenPartial is Open for folders whose chunks may leave holes; Tensor.Missing
// counts them.
func OpenPartial(s weights.Store, dir string) (*Checkpoint, error) {
	name := weights.Join(dir, MetadataName)
	raw, err := weights.ReadFile(s, name, maxMetadata)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no distributed checkpoint: it has no %s: %w", dir, MetadataName, err)
		}
		return nil, err
	}
	c, err := read(s, dir, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func read(s weights.Store, dir string, raw []byte) (*Checkpoint, error) {
	root, err := torch.Unpickle(raw, torch.Options{MaxPickle: maxMetadata, MaxValues: maxValues})
	if err != nil {
		return nil, err
	}
	m, err := object(root, "Metadata")
	if err != nil {
		return nil, err
	}
	items, err := readItems(m)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{}
	state, err := attrDict(m, "state_dict_metadata")
	if err != nil {
		return nil, err
	}
	paths, _ := attrDict(m, "planner_data")
	for _, p := range state.Pairs() {
		name, ok := p.Key.(string)
		if !ok {
			return nil, errors.New("a tensor has a name that is no string")
		}
		if err := c.add(name, p.Value, pathOf(paths, name), items); err != nil {
			return nil, err
		}
	}
	if err := c.locate(s, dir, items); err != nil {
		return nil, err
	}
	// Items refer to tensors by position, so sorting comes last.
	slices.SortFunc(c.Tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Blobs, func(a, b Blob) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// item is where the metadata say that the bytes of a chunk or value are: a
// torch.save file inside a .distcp file.
type item struct {
	file           string
	offset, length int64
	tensor, chunk  int // what it holds; -1 before it is known
	blob           int
}

// itemKey is the identity of a MetadataIndex: its name and offsets.
func itemKey(name string, offsets []int) string {
	return fmt.Sprintf("%d:%s%v", len(name), name, offsets)
}

func readItems(m *torch.Object) (map[string]*item, error) {
	storage, err := attrDict(m, "storage_data")
	if err != nil {
		return nil, err
	}
	items := make(map[string]*item, storage.Len())
	for _, p := range storage.Pairs() {
		index, err := object(p.Key, "MetadataIndex")
		if err != nil {
			return nil, err
		}
		info, err := object(p.Value, "_StorageInfo")
		if err != nil {
			return nil, err
		}
		name, err := attr[string](index, "fqn")
		if err != nil {
			return nil, err
		}
		var offsets []int
		if v, _ := index.Attr("offset"); v != nil {
			if offsets, err = size(v); err != nil {
				return nil, fmt.Errorf("%q: %w", name, err)
			}
		}
		it := &item{tensor: -1, chunk: -1, blob: -1}
		if err := it.read(info); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		key := itemKey(name, offsets)
		if items[key] != nil {
			return nil, fmt.Errorf("%q has two places for the chunk at %v", name, offsets)
		}
		items[key] = it
	}
	return items, nil
}

func (it *item) read(info *torch.Object) error {
	var err error
	if it.file, err = attr[string](info, "relative_path"); err != nil {
		return err
	}
	if err := weights.CheckName(it.file); err != nil {
		return err
	}
	if it.offset, err = attr[int64](info, "offset"); err != nil {
		return err
	}
	if it.length, err = attr[int64](info, "length"); err != nil {
		return err
	}
	if it.offset < 0 || it.length < 0 {
		return fmt.Errorf("its place in %s is negative", it.file)
	}
	v, _ := info.Attr("transform_descriptors")
	switch l := v.(type) {
	case nil:
	case *torch.List:
		if len(l.Items) > 0 {
			return fmt.Errorf("its bytes in %s are transformed (%v), which is not supported: save without extensions", it.file, l.Items[0])
		}
	default:
		return fmt.Errorf("its bytes in %s are transformed, which is not supported: save without extensions", it.file)
	}
	return nil
}

// add reads the description of one entry of the state dict.
func (c *Checkpoint) add(name string, v torch.Value, path []torch.Value, items map[string]*item) error {
	o, ok := v.(*torch.Object)
	if !ok {
		return fmt.Errorf("%q is described by no object", name)
	}
	if o.Class.Name == "BytesStorageMetadata" {
		it := items[itemKey(name, nil)]
		if it == nil {
			return fmt.Errorf("value %q has no bytes", name)
		}
		it.blob = len(c.Blobs)
		c.Blobs = append(c.Blobs, Blob{Name: name, Path: path})
		return nil
	}
	if _, err := object(v, "TensorStorageMetadata"); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	t := Tensor{Name: name, Path: path}
	if err := t.describe(o); err != nil {
		return fmt.Errorf("tensor %q: %w", name, err)
	}
	for i, ch := range t.Chunks {
		key := itemKey(name, ch.Offsets)
		it := items[key]
		if it == nil && len(t.Chunks) == 1 {
			it = items[itemKey(name, nil)] // versions before 2.0 leave out the offset
		}
		if it == nil {
			return fmt.Errorf("tensor %q: the chunk at %v has no bytes", name, ch.Offsets)
		}
		if it.tensor >= 0 {
			return fmt.Errorf("tensor %q has two chunks at %v", name, ch.Offsets)
		}
		it.tensor, it.chunk = len(c.Tensors), i
	}
	c.Tensors = append(c.Tensors, t)
	return c.Tensors[len(c.Tensors)-1].check()
}

func (t *Tensor) describe(o *torch.Object) error {
	v, _ := o.Attr("size")
	var err error
	if t.Shape, err = size(v); err != nil {
		return err
	}
	if err := t.readProperties(o); err != nil {
		return err
	}
	v, _ = o.Attr("chunks")
	list, ok := v.(*torch.List)
	if !ok {
		return errors.New("it has no list of chunks")
	}
	for _, x := range list.Items {
		ch, err := object(x, "ChunkStorageMetadata")
		if err != nil {
			return err
		}
		off, _ := ch.Attr("offsets")
		siz, _ := ch.Attr("sizes")
		var k Chunk
		if k.Offsets, err = size(off); err != nil {
			return err
		}
		if k.Sizes, err = size(siz); err != nil {
			return err
		}
		t.Chunks = append(t.Chunks, k)
	}
	return nil
}

// readProperties reads TensorProperties, whose state is a tuple that begins
// with dtype, layout, requires_grad.
func (t *Tensor) readProperties(o *torch.Object) error {
	v, _ := o.Attr("properties")
	p, err := object(v, "TensorProperties")
	if err != nil {
		return err
	}
	var dtype, layout, grad torch.Value
	if tup, ok := p.State.(*torch.Tuple); ok && len(tup.Items) >= 3 {
		dtype, layout, grad = tup.Items[0], tup.Items[1], tup.Items[2]
	} else {
		dtype, _ = p.Attr("dtype")
		layout, _ = p.Attr("layout")
		grad, _ = p.Attr("requires_grad")
	}
	var ok bool
	if t.DType, ok = torch.DTypeOf(dtype); !ok {
		return errors.New("its element type is unknown")
	}
	t.RequiresGrad = grad == true
	if l, ok := layout.(*torch.Object); ok && l.Args != nil && len(l.Args.Items) == 1 && l.Args.Items[0] != "torch.strided" {
		return fmt.Errorf("its layout %v is not supported: only strided tensors are", l.Args.Items[0])
	}
	return nil
}

// locate opens each .distcp file once and finds the data of its items.
func (c *Checkpoint) locate(s weights.Store, dir string, items map[string]*item) error {
	byFile := map[string][]*item{}
	for _, it := range items {
		if it.tensor >= 0 || it.blob >= 0 {
			byFile[it.file] = append(byFile[it.file], it)
		}
	}
	files := make([]string, 0, len(byFile))
	for f := range byFile {
		files = append(files, f)
	}
	slices.Sort(files)
	for _, f := range files {
		list := byFile[f]
		slices.SortFunc(list, func(a, b *item) int {
			switch {
			case a.offset < b.offset:
				return -1
			case a.offset > b.offset:
				return 1
			}
			return 0
		})
		if err := c.locateIn(s, weights.Join(dir, f), list); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) locateIn(s weights.Store, name string, list []*item) error {
	f, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	end := int64(0)
	for _, it := range list {
		what := c.nameOf(it)
		if it.offset > f.Size() || it.length > f.Size()-it.offset {
			return fmt.Errorf("%s: %s is at %d to %d, but the file ends at %d: it is truncated", name, what, it.offset, it.offset+it.length, f.Size())
		}
		if it.offset < end {
			return fmt.Errorf("%s: %s overlaps the one before it", name, what)
		}
		end = it.offset + it.length
		if err := c.open(f, name, it); err != nil {
			return fmt.Errorf("%s: %s: %w", name, what, err)
		}
	}
	return nil
}

func (c *Checkpoint) nameOf(it *item) string {
	if it.blob >= 0 {
		return fmt.Sprintf("value %q", c.Blobs[it.blob].Name)
	}
	t := c.Tensors[it.tensor]
	return fmt.Sprintf("tensor %q at %v", t.Name, t.Chunks[it.chunk].Offsets)
}

// open reads one item as the torch.save file that it is.
func (c *Checkpoint) open(f weights.File, name string, it *item) error {
	r := section{f, it.offset}
	x, err := torch.Open(r, it.length, torch.Options{Base: it.offset, MaxPickle: maxBlob})
	if err != nil {
		return err
	}
	for _, st := range x.Storages {
		st.File, st.Data = name, nil
	}
	if it.blob >= 0 {
		c.Blobs[it.blob].Value = x.Root
		return nil
	}
	t := &c.Tensors[it.tensor]
	ch := &t.Chunks[it.chunk]
	v, ok := x.Root.(*torch.Tensor)
	switch {
	case !ok:
		return errors.New("the bytes hold no tensor")
	case v.DType != t.DType:
		return fmt.Errorf("the bytes hold %s, but the metadata say %s", v.DType, t.DType)
	case !slices.Equal(v.Shape, ch.Sizes):
		return fmt.Errorf("the bytes hold shape %v, but the metadata say %v", v.Shape, ch.Sizes)
	}
	ch.Data = v.Ref(t.Name)
	st := v.Storage
	ch.Sum, ch.HasSum, ch.Storage, ch.StorageBytes = st.Sum, st.HasSum, st.Offset, st.Bytes()
	return nil
}

// section shifts the reads of a file.
type section struct {
	f    weights.File
	base int64
}

func (s section) ReadAt(p []byte, off int64) (int, error) { return s.f.ReadAt(p, s.base+off) }

// object checks the class name of a value. The module differs by version.
func object(v torch.Value, name string) (*torch.Object, error) {
	o, ok := v.(*torch.Object)
	if !ok || o.Class.Name != name || !strings.HasPrefix(o.Class.Module, "torch.distributed.") {
		return nil, fmt.Errorf("the metadata hold something else where a %s belongs", name)
	}
	return o, nil
}

func attr[T any](o *torch.Object, name string) (T, error) {
	v, _ := o.Attr(name)
	x, ok := v.(T)
	if !ok {
		return x, fmt.Errorf("a %s lacks its %s", o.Class.Name, name)
	}
	return x, nil
}

func attrDict(o *torch.Object, name string) (*torch.Dict, error) { return attr[*torch.Dict](o, name) }

func size(v torch.Value) ([]int, error) {
	switch x := v.(type) {
	case torch.Size:
		return x, nil
	case *torch.Tuple:
		out := make([]int, len(x.Items))
		for i, y := range x.Items {
			n, ok := y.(int64)
			if !ok {
				return nil, errors.New("a size holds something else than integers")
			}
			out[i] = int(n)
		}
		return out, nil
	}
	return nil, errors.New("a size is missing")
}

func pathOf(paths *torch.Dict, name string) []torch.Value {
	v, _ := paths.Get(name)
	if t, ok := v.(*torch.Tuple); ok {
		return t.Items
	}
	return nil
}
