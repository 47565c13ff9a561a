package deepspeed

import (
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// stage0 reads the optimizer of a checkpoint without ZeRO, which lies in the
// model-states file as torch's own state dict: states by the number of the
// parameter, whole.
func (r *reader) stage0() error {
	for _, m := range r.c.Models {
		o := sub(m.Root, "optimizer")
		if o == nil || r.opt.WeightsOnly {
			continue
		}
		states := sub(o, "state")
		if states == nil {
			r.c.Warnf("the optimizer of %s is not in torch's form; it is not read", m.File)
			continue
		}
		rk := r.ranks[m.PP*r.c.Topology.TP+m.TP]
		if err := r.stage0Rank(rk, o, states); err != nil {
			return bad(r.file(m.File), "%w", err)
		}
	}
	return nil
}

func (r *reader) stage0Rank(rk *rank, o, states *torch.Dict) error {
	var numbers []int64
	for g, v := range items(o, "param_groups") {
		d, ok := v.(*torch.Dict)
		if !ok {
			continue
		}
		if rk.mp == 0 {
			r.c.Groups = append(r.c.Groups, d)
		}
		for _, n := range items(d, "params") {
			if x, ok := integer(n); ok {
				numbers = append(numbers, x)
				if i := len(numbers) - 1; i < len(rk.order) {
					rk.params[rk.order[i]].group = g
				}
			}
		}
	}
	for i, name := range rk.order {
		if i >= len(numbers) {
			break
		}
		l := rk.params[name]
		v, _ := states.Get(numbers[i])
		d, _ := v.(*torch.Dict)
		for _, kv := range d.Pairs() {
			key, _ := kv.Key.(string)
			if s, ok := scalar(kv.Value); ok && key == "step" {
				l.step = s
				continue
			}
			t, ok := kv.Value.(*torch.Tensor)
			if !ok || !slices.Equal(atom.Dims(t.Shape), l.shape) {
				continue
			}
			p := r.book.Piece(t, geometry.Whole(l.shape))
			l.states = append(l.states, localState{key, localPiece{t.DType, p.Frags, p.Stride}})
		}
	}
	return nil
}
