package deepspeed

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// view names a tensor by where it lies: two names of one view are tied.
type view struct {
	storage *torch.Storage
	offset  int64
}

// modules reads the weights of the model files: low-precision weights, buffers,
// frozen and tied parameters.
func (r *reader) modules() error {
	for _, m := range r.c.Models {
		rk := r.ranks[m.PP*r.c.Topology.TP+m.TP]
		root := m.Root
		if root == nil { // a further data-parallel rank of ZeRO-3
			if len(r.frozen) == 0 {
				continue
			}
			var err error
			if root, err = r.openDict(m.File); err != nil {
				return err
			}
		}
		if err := r.frozenFragments(rk, m, root); err != nil {
			return bad(r.file(m.File), "%w", err)
		}
		if m.Root == nil {
			continue
		}
		if err := r.module(rk, sub(root, "module")); err != nil {
			return bad(r.file(m.File), "%w", err)
		}
	}
	return r.layers()
}

// module enters the tensors of one state dict.
func (r *reader) module(rk *rank, d *torch.Dict) error {
	known := map[view]string{}
	var rest []torch.Pair
	for _, kv := range d.Pairs() {
		name, _ := kv.Key.(string)
		t, ok := kv.Value.(*torch.Tensor)
		if !ok {
			continue // extra state that is no tensor travels with the model file
		}
		if rk.params[name] == nil {
			rest = append(rest, kv)
			continue
		}
		known[view{t.Storage, t.StorageOffset}] = name
		if err := r.moduleTensor(rk, name, t); err != nil {
			return err
		}
	}
	for _, kv := range rest {
		name, t := kv.Key.(string), kv.Value.(*torch.Tensor)
		stored, tied := r.shared[name]
		if tied && rk.params[stored] == nil {
			tied = false
		}
		if !tied && !r.frozen[name] && !r.buffer[name] {
			stored, tied = known[view{t.Storage, t.StorageOffset}]
			tied = tied && r.sameShape(rk, d, stored, t)
		}
		if tied {
			rk.params[stored].aliases = append(rk.params[stored].aliases, name)
			continue
		}
		if err := r.moduleTensor(rk, name, t); err != nil {
			return err
		}
		known[view{t.Storage, t.StorageOffset}] = name
	}
	return nil
}

func (r *reader) sameShape(rk *rank, d *torch.Dict, stored string, t *torch.Tensor) bool {
	v, _ := d.Get(stored)
	o, ok := v.(*torch.Tensor)
	return ok && slices.Equal(o.Shape, t.Shape) && rk.params[stored] != nil
}

// moduleTensor enters one tensor of the model. ZeRO-3 leaves empty
// placeholders, whose element type still tells the model's.
func (r *reader) moduleTensor(rk *rank, name string, t *torch.Tensor) error {
	l := rk.params[name]
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	if l != nil && l.group >= 0 && r.c.ModuleType == tensor.Invalid {
		r.c.ModuleType = t.DType
	}
	if n == 0 && l != nil && l.numel() > 0 {
		return nil
	}
	if n == 0 && r.c.Topology.Zero == 3 && r.frozen[name] {
		return nil
	}
	if l == nil {
		var err error
		if l, err = rk.add(name, atom.Dims(t.Shape), -1); err != nil {
			return err
		}
	}
	if !slices.Equal(l.shape, atom.Dims(t.Shape)) {
		return fmt.Errorf("%s has shape %v in the model and %v in the optimizer", name, t.Shape, l.shape)
	}
	for _, s := range l.states {
		if s.name == atom.Module {
			return nil
		}
	}
	p := r.book.Piece(t, geometry.Whole(l.shape))
	l.states = append(l.states, localState{atom.Module, localPiece{t.DType, p.Frags, p.Stride}})
	return nil
}

// frozenFragments enters parameters that are not trained: whole under ZeRO-2,
// cut over the data-parallel ranks under ZeRO-3.
func (r *reader) frozenFragments(rk *rank, m atom.ModelState, root *torch.Dict) error {
	shapesOf, frags := sub(root, "frozen_param_shapes"), sub(root, "frozen_param_fragments")
	for _, kv := range frags.Pairs() {
		name, _ := kv.Key.(string)
		t, ok := kv.Value.(*torch.Tensor)
		sv, _ := shapesOf.Get(name)
		full, err := shape(sv)
		if !ok || err != nil {
			return fmt.Errorf("frozen parameter %s has no tensor or no shape", name)
		}
		l, err := rk.add(name, full, -1)
		if err != nil {
			return err
		}
		if len(r.files.model) > 0 {
			if err := r.moduleTensor(rk, name, t); err != nil {
				return err
			}
			continue
		}
		own, _ := geometry.SlicePartition(l.numel(), int64(r.c.Topology.DP), int64(m.DP))
		if own.Len == 0 {
			continue
		}
		f, err := r.book.Flat(t, 0, own.Len, own.Start)
		if err != nil {
			return fmt.Errorf("frozen parameter %s: %w", name, err)
		}
		if err := l.addFrag(atom.Module, t.DType, f); err != nil {
			return err
		}
	}
	return nil
}

// layers reads the layer files of a pipeline module.
func (r *reader) layers() error {
	for _, f := range r.files.layer {
		d, err := r.openDict(f.name)
		if err != nil {
			return err
		}
		for _, kv := range d.Pairs() {
			key, _ := kv.Key.(string)
			t, ok := kv.Value.(*torch.Tensor)
			if !ok {
				continue
			}
			rk, name, err := r.layerOwner(f, key)
			if err != nil {
				return bad(r.file(f.name), "%w", err)
			}
			if err := r.moduleTensor(rk, name, t); err != nil {
				return bad(r.file(f.name), "%w", err)
			}
			l := rk.params[name]
			if p := (atom.Place{Layer: f.a, Key: key}); !slices.Contains(l.places, p) {
				l.places = append(l.places, p)
			}
		}
	}
	return nil
}

// layerOwner finds the rank and the full name of a key of a layer file: the
// layer's own number before it, or the module that it is tied to.
func (r *reader) layerOwner(f rankFile, key string) (*rank, string, error) {
	own := strconv.Itoa(f.a) + "."
	var home *rank
	tied := map[string]*rank{}
	for _, rk := range r.ranks {
		if rk.tp != f.b {
			continue
		}
		if rk.params[own+key] != nil {
			return rk, own + key, nil
		}
		for _, name := range rk.order {
			if strings.HasPrefix(name, own) && home == nil {
				home = rk
			}
			if mod, ok := strings.CutPrefix(name, "tied_modules."); ok {
				if _, k, ok := strings.Cut(mod, "."); ok && k == key && tied[name] == nil {
					tied[name] = rk
				}
			}
		}
	}
	if !r.buffer[own+key] && !r.frozen[own+key] && len(tied) > 0 {
		if len(tied) > 1 {
			return nil, "", fmt.Errorf("%s may belong to several tied modules", key)
		}
		for name, rk := range tied {
			return rk, name, nil
		}
	}
	if home == nil {
		for _, rk := range r.ranks {
			if rk.tp == f.b {
				home = rk
				break
			}
		}
	}
	if home == nil {
		return nil, "", fmt.Errorf("tensor-parallel rank %d does not exist", f.b)
	}
	return home, own + key, nil
}
