package universal

import (
	"path"
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// frozenSlices joins frozen parameters that the copied model files of ZeRO-3
// hold in slices, one per data-parallel rank.
func (r *reader) frozenSlices() error {
	if len(r.frozen) == 0 || len(r.c.Models) == 0 || r.c.Models[0].Root == nil {
		return nil
	}
	first := r.c.Models[0].Root
	shapes, frags := dict(first, "frozen_param_shapes"), dict(first, "frozen_param_fragments")
	made := map[string]*atom.Tensor{}
	for _, kv := range shapes.Pairs() {
		name, _ := kv.Key.(string)
		size, ok := kv.Value.(torch.Size)
		v, _ := frags.Get(name)
		t, isTensor := v.(*torch.Tensor)
		if !ok || !isTensor || r.c.Param(name) != nil {
			continue
		}
		shape := atom.Dims(size)
		made[name] = &atom.Tensor{DType: t.DType, Shape: shape, Pieces: []atom.Piece{{View: geometry.Whole(shape)}}}
	}
	if len(made) == 0 {
		return nil
	}
	dp, tp := int64(0), 1
	for _, m := range r.c.Models {
		if m.TP == r.c.Models[0].TP {
			dp++
		}
		tp = max(tp, m.TP+1)
	}
	for _, m := range r.c.Models {
		if m.TP != r.c.Models[0].TP {
			continue
		}
		root := m.Root
		name := path.Join(r.c.Folder, m.File)
		if root == nil {
			v, err := r.book.Open(name)
			if err != nil {
				return err
			}
			root, _ = v.(*torch.Dict)
		}
		for _, kv := range dict(root, "frozen_param_fragments").Pairs() {
			n, _ := kv.Key.(string)
			t, ok := kv.Value.(*torch.Tensor)
			x := made[n]
			if x == nil || !ok {
				continue
			}
			own, _ := geometry.SlicePartition(x.Numel(), dp, int64(m.DP))
			if own.Len == 0 {
				continue
			}
			f, err := r.book.Flat(t, 0, own.Len, own.Start)
			if err != nil {
				return bad(name, "frozen parameter %s: %w", n, err)
			}
			x.Pieces[0].Frags = append(x.Pieces[0].Frags, f)
		}
	}
	for _, kv := range shapes.Pairs() {
		name, _ := kv.Key.(string)
		if x := made[name]; x != nil {
			slices.SortFunc(x.Pieces[0].Frags, func(a, b atom.Frag) int { return int(min(max(a.Start-b.Start, -1), 1)) })
			p := &atom.Param{Name: name, Shape: x.Shape, Kind: atom.Frozen, Group: -1, Stages: []int{0}}
			m, err := r.c.Spec.Match(name)
			if err != nil {
				return err
			}
			if p.Rule = m; m.Pattern == "" {
				p.Rule.Kind = spec.Replicated
			}
			if tp > 1 && p.Rule.Kind == spec.Fragment {
				r.c.Warnf("frozen parameter %s is cut over %d tensor-parallel ranks; the universal form does not join it, so it is left out", name, tp)
				continue
			}
			p.SetState(atom.Module, x)
			r.c.Params = append(r.c.Params, p)
		}
	}
	return nil
}

func dict(d *torch.Dict, key string) *torch.Dict {
	v, _ := d.Get(key)
	x, _ := v.(*torch.Dict)
	return x
}
