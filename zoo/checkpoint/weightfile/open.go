package weightfile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// indexNames are the index files of sharded checkpoints, in order of choice.
var indexNames = []string{"model.safetensors.index.json", "pytorch_model.bin.index.json", "diffusion_pytorch_model.safetensors.index.json"}

// singleNames are the files of unsharded checkpoint folders.
var singleNames = []string{"model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin"}

// Find tells which index or single file a folder holds; "" for none.
func Find(s weights.Store) string {
	for _, n := range slices.Concat(indexNames, singleNames) {
		if ok, err := weights.Exists(s, n); ok && err == nil {
			return n
		}
	}
	return ""
}

type reader struct {
	c    *atom.Checkpoint
	book *atom.Book
	tied map[view]*atom.Param
}

type view struct {
	storage *torch.Storage
	offset  int64
	shape   string
}

// Open reads one file, or all files that an index names.
func Open(s weights.Store, name string) (*atom.Checkpoint, error) {
	c := &atom.Checkpoint{Format: "weights", Store: s, Folder: ".", Spec: &spec.Spec{}, Topology: atom.Topology{TP: 1, PP: 1, DP: 1}}
	base := path.Base(name)
	c.Name = strings.TrimSuffix(base, path.Ext(base))
	r := &reader{c: c, book: atom.NewBook(c), tied: map[view]*atom.Param{}}
	var err error
	if strings.HasSuffix(name, ".index.json") {
		c.Format = "hugging-face"
		err = r.index(name)
	} else {
		err = r.file(name)
	}
	if err == nil {
		err = c.Check()
	}
	if err == nil && len(c.Params) == 0 {
		err = fault.New(fault.BadModel, "file holds no tensors").InFile(name)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (r *reader) index(name string) error {
	b, err := weights.ReadFile(r.c.Store, name, 1<<28)
	if err != nil {
		return err
	}
	x, err := safetensors.ParseIndex(b)
	if err != nil {
		return fault.New(fault.BadModel, "%w", err).InFile(name)
	}
	var missing []string
	for _, f := range x.Files() {
		if ok, err := weights.Exists(r.c.Store, f); err == nil && !ok {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.BadModel, "shards are missing: %s", strings.Join(missing, ", ")).InFile(name)
	}
	for _, f := range x.Files() {
		if err := r.file(f); err != nil {
			return err
		}
	}
	for n, f := range x.WeightMap {
		p := r.c.Param(n)
		if p == nil {
			return fault.New(fault.BadModel, "%s is missing in %s", n, f).InFile(name)
		}
	}
	return nil
}

func (r *reader) file(name string) error {
	f, err := r.c.Store.Open(name)
	if err != nil {
		return err
	}
	head := make([]byte, min(f.Size(), 16))
	_, err = f.ReadAt(head, 0)
	f.Close()
	if err != nil && len(head) == 0 {
		return fault.New(fault.BadModel, "file is empty").InFile(name)
	}
	switch {
	case safetensors.Detect(head):
		err = r.safetensors(name)
	case strings.HasSuffix(name, ".npz"), strings.HasSuffix(name, ".npy"):
		err = r.npz(name)
	default:
		err = r.torch(name)
	}
	if err != nil && fault.As(err) == nil {
		return fault.New(fault.BadModel, "%w", err).InFile(name)
	}
	return err
}

func (r *reader) safetensors(name string) error {
	f, err := safetensors.OpenIn(r.c.Store, name)
	if err != nil {
		return err
	}
	for _, t := range f.Tensors {
		r.plain(t)
	}
	return nil
}

// plain enters a tensor that lies in a file as one range.
func (r *reader) plain(t weights.Tensor) {
	shape := atom.Dims(t.Shape)
	x := &atom.Tensor{DType: t.DType, Shape: shape, Pieces: []atom.Piece{{
		View: geometry.Whole(shape), Frags: []atom.Frag{{Len: t.Len(), Blob: int32(len(r.c.Blobs))}},
	}}}
	n := t.Bytes()
	if t.Stride != nil {
		x.Pieces[0].Stride = atom.Dims(t.Stride)
		if e, err := weights.Extent(t.Shape, t.Stride); err == nil {
			n = e * int64(t.DType.Size())
		}
	}
	r.c.Blobs = append(r.c.Blobs, atom.Blob{File: t.File, Offset: t.Offset, Bytes: n})
	r.add(t.Name, x)
}

func (r *reader) add(name string, t *atom.Tensor) *atom.Param {
	p := &atom.Param{Name: name, Shape: t.Shape, Kind: atom.Trained, Stages: []int{0}}
	p.Rule = spec.Match{Kind: spec.Fragment}
	p.SetState(atom.Module, t)
	r.c.Params = append(r.c.Params, p)
	if r.c.ModuleType == tensor.Invalid {
		r.c.ModuleType = t.DType
	}
	return p
}

// stateDicts are the keys under which programs keep a model's weights.
var stateDicts = []string{"state_dict", "model_state_dict", "model", "module", "params", "weights"}

func (r *reader) torch(name string) error {
	v, err := r.book.Open(name)
	if err != nil {
		return err
	}
	if t, ok := v.(*torch.Tensor); ok {
		r.tensor(r.c.Name, t)
		return nil
	}
	if d, ok := v.(*torch.Dict); ok {
		if r.dict(d) {
			return nil
		}
		for _, key := range stateDicts {
			inner, _ := d.Get(key)
			if x, ok := inner.(*torch.Dict); ok && r.dict(x) {
				r.c.Warnf("the weights are those under %q; the rest of the file is left out", key)
				return nil
			}
		}
	}
	list, err := torch.Tensors(v)
	if err != nil {
		return err
	}
	for _, n := range list {
		r.tensor(strings.ReplaceAll(n.Path, "/", "."), n.Tensor)
	}
	return nil
}

// dict enters a dict whose values are tensors, and tells whether it is one.
func (r *reader) dict(d *torch.Dict) bool {
	var found []torch.Pair
	for _, kv := range d.Pairs() {
		_, isTensor := kv.Value.(*torch.Tensor)
		_, named := kv.Key.(string)
		switch {
		case isTensor && named:
			found = append(found, kv)
		case kv.Value == nil:
		default:
			if _, nested := kv.Value.(*torch.Dict); nested {
				return false
			}
		}
	}
	for _, kv := range found {
		r.tensor(kv.Key.(string), kv.Value.(*torch.Tensor))
	}
	return len(found) > 0
}

func (r *reader) tensor(name string, t *torch.Tensor) {
	v := view{t.Storage, t.StorageOffset, fmt.Sprint(t.Shape, t.Stride)}
	if p := r.tied[v]; p != nil && t.Storage.Elements > 0 {
		p.Aliases = append(p.Aliases, name)
		return
	}
	r.tied[v] = r.add(name, r.book.Tensor(t))
}
