package deepspeed

import (
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// subGroupSize is DeepSpeed's default of sub_group_size.
const subGroupSize = 1_000_000_000

// subgroups cuts the groups as ZeRO-3 does: parameters are appended until a
// rank's share reaches sub_group_size.
func (r *rankPlan) subgroups() {
	limit := int64(subGroupSize)
	if n, ok := number(sub(r.config, "zero_optimization"), "sub_group_size"); ok && n > 0 {
		limit = n
	}
	for g, ps := range r.groups {
		var cur []*cut
		size := int64(0)
		for _, p := range ps {
			_, slot := geometry.SlicePartition(p.numel(r.tp), int64(r.l.DP), 0)
			cur = append(cur, p)
			if size += slot; size >= limit {
				r.subs, r.subOf = append(r.subs, cur), append(r.subOf, g)
				cur, size = nil, 0
			}
		}
		if len(cur) > 0 {
			r.subs, r.subOf = append(r.subs, cur), append(r.subOf, g)
		}
	}
}

// slots fills the flat tensor of a sub-group on data-parallel rank d.
func (r *rankPlan) slots(ps []*cut, d int, state string, dt tensor.DType) (int64, []engine.Span) {
	var out []engine.Span
	total := int64(0)
	for _, p := range ps {
		own, slot := geometry.SlicePartition(p.numel(r.tp), int64(r.l.DP), int64(d))
		t := p.State(state)
		if state == atom.FP32 {
			t = master(p)
		}
		if t == nil {
			own.Len = 0
		}
		if own.Len > 0 {
			out = append(out, r.span(p, t, own.Start, own.Len, dt))
		}
		if pad := slot - own.Len; pad > 0 {
			out = append(out, engine.Span{Zeros: pad * int64(dt.Size())})
		}
		total += slot
	}
	return total, out
}

func (r *rankPlan) optim3Bytes() int64 {
	n := int64(0)
	for _, ps := range r.subs {
		width := int64(masterType(ps).Size())
		for _, s := range r.states {
			if t, ok := stateType(ps, s); ok {
				width += int64(t.Size())
			}
		}
		for _, p := range ps {
			_, slot := geometry.SlicePartition(p.numel(r.tp), int64(r.l.DP), 0)
			n += slot * width
		}
	}
	return n
}

// optim3 is the optimizer file of a ZeRO-3 rank.
func (r *rankPlan) optim3(fills torchfile.Fills, d int) (torch.Value, error) {
	states, flats := torch.NewDict(), torch.NewList()
	for i, ps := range r.subs {
		st := torch.NewDict()
		s, err := step(ps)
		if err != nil {
			return nil, err
		}
		if s != nil && !r.stepInGroup(r.subOf[i]) {
			st.Set("step", s)
		}
		for _, name := range r.states {
			if dt, ok := stateType(ps, name); ok {
				n, spans := r.slots(ps, d, name, dt)
				st.Set(name, fills.Tensor(dt, []int64{n}, spans...))
			}
		}
		states.Set(int64(i), st)
		mt := masterType(ps)
		n, spans := r.slots(ps, d, atom.FP32, mt)
		flats.Items = append(flats.Items, fills.Tensor(mt, []int64{n}, spans...))
	}
	inner := torch.NewDict("state", states, "param_groups", r.paramGroups(func(g int) []int64 {
		var out []int64
		for i, of := range r.subOf {
			if of == g {
				out = append(out, int64(i))
			}
		}
		return out
	}))
	base := r.optimBase()
	o := torch.NewDict("zero_stage", zeroStage(3))
	for _, kv := range base.Pairs() {
		o.Set(kv.Key, kv.Value)
	}
	o.Set("partition_count", int64(r.l.DP))
	o.Set("optimizer_state_dict", inner)
	o.Set("fp32_flat_groups", flats)
	return r.optimFile(o), nil
}

func (r *rankPlan) model3Bytes(d int) int64 {
	n := int64(0)
	for _, p := range r.others {
		t := p.Weight()
		if p.Kind == atom.Frozen {
			_, slot := geometry.SlicePartition(p.numel(r.tp), int64(r.l.DP), int64(d))
			n += slot * int64(t.DType.Size())
		} else {
			n += p.numel(r.tp) * int64(t.DType.Size())
		}
	}
	return n
}

// model3 is the model-states file of a ZeRO-3 rank: empty placeholders for what
// is cut, buffers whole, frozen parameters by their slices.
func (r *rankPlan) model3(fills torchfile.Fills, d int) (torch.Value, error) {
	module := torch.NewOrderedDict()
	for _, p := range r.params {
		if !p.on(r.pp) {
			continue
		}
		if p.Kind == atom.Buffer {
			module.Set(p.Name, r.whole(fills, p, p.Weight(), p.Weight().DType))
			continue
		}
		dt := r.module
		if p.Kind == atom.Frozen {
			dt = p.Weight().DType
		}
		hole := fills.Tensor(dt, []int64{0})
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			module.Set(name, torch.ViewOf(hole.Storage, []int{0}, 0))
		}
	}
	m := r.modelBase()
	m.Set("module", module)
	shapes := torch.NewList()
	for _, ps := range r.subs {
		shapes.Items = append(shapes.Items, r.shapesOf(ps))
	}
	m.Set("param_shapes", shapes)
	r.frozen(m, func(p *cut, t *atom.Tensor) *torch.Tensor {
		own, slot := geometry.SlicePartition(p.numel(r.tp), int64(r.l.DP), int64(d))
		var spans []engine.Span
		if own.Len > 0 {
			spans = append(spans, r.span(p, t, own.Start, own.Len, t.DType))
		}
		if pad := slot - own.Len; pad > 0 {
			spans = append(spans, engine.Span{Zeros: pad * int64(t.DType.Size())})
		}
		return fills.Tensor(t.DType, []int64{slot}, spans...)
	})
	if d > 0 {
		m.Set("shared_params", torch.NewDict())
	}
	return m, nil
}
