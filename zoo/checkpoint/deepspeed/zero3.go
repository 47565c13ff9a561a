package deepspeed

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// vector is a list of flat tensors seen as one.
type vector []*torch.Tensor

func (v vector) len() int64 {
	n := int64(0)
	for _, t := range v {
		n += int64(t.Shape[0])
	}
	return n
}

// zero3 reads ZeRO-3 optimizer files: every parameter is cut over the ranks on
// its own, sub-group by sub-group.
func (r *reader) zero3(rk *rank, parts []*part) error {
	if len(rk.groups) == 0 {
		return bad(parts[0].file, "the model-states file has no param_shapes")
	}
	for _, p := range parts {
		if err := r.zero3Part(rk, p); err != nil {
			return bad(p.file, "%w", err)
		}
	}
	if r.c.Optim == nil {
		r.carry(parts[0], "fp32_flat_groups")
		r.c.Optim.Set("optimizer_state_dict", slim(sub(parts[0].optim, "optimizer_state_dict")))
	}
	return nil
}

// slim is torch's optimizer dict without its sharded tensors: the loader of
// universal checkpoints takes the step and the hyper-parameters from it.
func slim(o *torch.Dict) *torch.Dict {
	if o == nil {
		return torch.NewDict()
	}
	states := torch.NewDict()
	for _, kv := range sub(o, "state").Pairs() {
		st := torch.NewDict()
		d, _ := kv.Value.(*torch.Dict)
		for _, x := range d.Pairs() {
			if t, ok := x.Value.(*torch.Tensor); !ok || len(t.Shape) == 0 {
				st.Set(x.Key, x.Value)
			}
		}
		states.Set(kv.Key, st)
	}
	out := o.Copy()
	out.Set("state", states)
	return out
}

func (r *reader) zero3Part(rk *rank, p *part) error {
	if err := refuseAutoEP(p.optim); err != nil {
		return err
	}
	flat, err := flats(items(p.optim, "fp32_flat_groups"))
	if err != nil {
		return fmt.Errorf("fp32_flat_groups: %w", err)
	}
	inner := sub(p.optim, "optimizer_state_dict")
	states := sub(inner, "state")
	subToGroup := map[int64]int{}
	for g, v := range items(inner, "param_groups") {
		d, _ := v.(*torch.Dict)
		for _, s := range items(d, "params") {
			if n, ok := integer(s); ok {
				subToGroup[n] = g
			}
		}
	}
	// Old files hold one merged tensor per rank: then all sub-groups are one.
	merged := len(flat) != len(rk.groups)
	count := int64(r.c.Topology.DP)
	offset := int64(0)
	for i, gr := range rk.groups {
		var v vector
		key := int64(i)
		if merged {
			v = flat
			key = 0
		} else {
			v, offset = flat[i:i+1], 0
		}
		sv, _ := states.Get(key)
		st, _ := sv.(*torch.Dict)
		st = withStep(st, items(inner, "param_groups"), subToGroup[key])
		for k, name := range gr.names {
			l, err := rk.add(name, gr.shapes[k], subToGroup[key])
			if err != nil {
				return err
			}
			own, slot := geometry.SlicePartition(geometry.Numel(gr.shapes[k]), count, int64(p.dp))
			if err := r.slice3(l, st, v, own, offset); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			offset += slot
		}
		if !merged && offset > v.len() {
			return fmt.Errorf("sub-group %d has %d elements, its parameters need %d", i, v.len(), offset)
		}
	}
	return nil
}

// slice3 enters one rank's slice of a parameter with all its states.
func (r *reader) slice3(l *local, st *torch.Dict, fp32 vector, own geometry.Range, offset int64) error {
	if err := r.vectorFrags(l, atom.FP32, fp32, own, offset); err != nil {
		return err
	}
	for _, kv := range st.Pairs() {
		name, _ := kv.Key.(string)
		if name == "step" {
			s, ok := scalar(kv.Value)
			switch {
			case !ok:
			case l.step == nil:
				l.step = s
			case !SameScalar(l.step, s):
				return fmt.Errorf("step differs between data-parallel ranks")
			}
			continue
		}
		t, ok := kv.Value.(*torch.Tensor)
		if !ok || len(t.Shape) == 0 {
			continue
		}
		if len(t.Shape) != 1 {
			return fmt.Errorf("optimizer state %s has shape %v instead of a flat one", name, t.Shape)
		}
		if err := r.vectorFrags(l, name, vector{t}, own, offset); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) vectorFrags(l *local, state string, v vector, own geometry.Range, offset int64) error {
	want := geometry.Range{Start: offset, Len: own.Len}
	base := int64(0)
	if own.Len == 0 {
		return nil
	}
	for _, t := range v {
		n := int64(t.Shape[0])
		if c := want.Intersect(geometry.Range{Start: base, Len: n}); c.Len > 0 {
			f, err := r.book.Flat(t, c.Start-base, c.Len, own.Start+c.Start-offset)
			if err != nil {
				return fmt.Errorf("%s: %w", state, err)
			}
			if err := l.addFrag(state, t.DType, f); err != nil {
				return err
			}
			want.Len -= c.Len
			want.Start += c.Len
			offset += c.Len
			own.Start += c.Len
		}
		base += n
	}
	if want.Len > 0 {
		return fmt.Errorf("%s ends before the parameter does", state)
	}
	return nil
}

func flats(vs []torch.Value) (vector, error) {
	var out vector
	for i, v := range vs {
		t, ok := v.(*torch.Tensor)
		if !ok || len(t.Shape) != 1 {
			return nil, fmt.Errorf("item %d is not a flat tensor", i)
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is none")
	}
	return out, nil
}

// refuseAutoEP refuses partition groups of different sizes by name.
func refuseAutoEP(o *torch.Dict) error {
	var counts []int64
	for _, v := range items(o, "ds_zero_partition_groups") {
		d, _ := v.(*torch.Dict)
		if n, ok := number(d, "partition_count"); ok {
			counts = append(counts, n)
		}
	}
	slices.Sort(counts)
	if c := slices.Compact(counts); len(c) > 1 {
		return fmt.Errorf("AutoEP experts under ZeRO-3 (partition groups of %v ranks) are not supported", c)
	}
	return nil
}
