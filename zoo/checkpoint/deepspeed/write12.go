package deepspeed

import (
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// flat is a group as one data-parallel rank holds it.
type flat struct {
	count   int64 // ranks that share the group
	size    int64 // elements of a partition
	members []member
	real    int64 // elements of the partition that are no padding
}

// member is a parameter's run in a partition.
type member struct {
	*cut
	name       string // as the file calls it: experts go by local number
	start, len int64  // in the partition
	at         int64  // in the parameter's shard
}

// flatten computes the partition of group g on data-parallel rank d.
func (r *rankPlan) flatten(g, d int) flat {
	ps := r.groups[g]
	f := flat{count: int64(r.l.DP)}
	index := int64(d)
	names := func(p *cut) string { return p.Name }
	if r.moe != nil && r.moe.groups[g] {
		f.count = int64(r.l.DP / r.moe.ep)
		index = int64(d / r.moe.ep)
		ps = r.moe.local(ps, d%r.moe.ep)
		names = r.moe.localName
	}
	total := int64(0)
	for _, p := range ps {
		total += p.numel(r.tp)
	}
	f.size = geometry.FlatPartition(total, f.count)
	own := geometry.Range{Start: index * f.size, Len: f.size}
	at := int64(0)
	for _, p := range ps {
		n := p.numel(r.tp)
		if c := own.Intersect(geometry.Range{Start: at, Len: n}); c.Len > 0 {
			f.members = append(f.members, member{p, names(p), c.Start - own.Start, c.Len, c.Start - at})
			f.real += c.Len
		}
		at += n
	}
	return f
}

// spans fill a partition with one state.
func (r *rankPlan) spans(f flat, state string, d tensor.DType) []engine.Span {
	var out []engine.Span
	for _, m := range f.members {
		t := m.State(state)
		if state == atom.FP32 {
			t = master(m.cut)
		}
		if t == nil {
			out = append(out, engine.Span{Zeros: m.len * int64(d.Size())})
			continue
		}
		out = append(out, r.span(m.cut, t, m.at, m.len, d))
	}
	if pad := f.size - f.real; pad > 0 {
		out = append(out, engine.Span{Zeros: pad * int64(d.Size())})
	}
	return out
}

func (r *rankPlan) optim12Bytes(d int) int64 {
	n := int64(0)
	for g := range r.groups {
		f := r.flatten(g, d)
		n += f.size * int64(masterType(r.groups[g]).Size())
		for _, s := range r.states {
			if t, ok := stateType(r.groups[g], s); ok {
				n += f.size * int64(t.Size())
			}
		}
	}
	return n
}

// optim12 is the optimizer file of a ZeRO-1/2 or BF16 optimizer rank.
func (r *rankPlan) optim12(fills torchfile.Fills, d int) (torch.Value, error) {
	states, fp32 := torch.NewDict(), torch.NewList()
	paddings, counts, mappings := torch.NewList(), torch.NewList(), torch.NewList()
	for g, ps := range r.groups {
		f := r.flatten(g, d)
		st, err := r.groupState(fills, g, ps, f)
		if err != nil {
			return nil, err
		}
		states.Set(int64(g), st)
		mt := masterType(ps)
		w := fills.Tensor(mt, []int64{f.size}, r.spans(f, atom.FP32, mt)...)
		if !r.bf16o { // shown without its padding
			w = torch.ViewOf(w.Storage, []int{int(f.real)}, 0)
		}
		fp32.Items = append(fp32.Items, w)
		paddings.Items = append(paddings.Items, f.size-f.real)
		counts.Items = append(counts.Items, f.count)
		mappings.Items = append(mappings.Items, f.mapping())
	}
	base := torch.NewDict("state", states, "param_groups", r.paramGroups(func(g int) []int64 { return []int64{int64(g)} }))
	o := r.optimBase()
	o.Set("base_optimizer_state", base)
	o.Set("single_partition_of_fp32_groups", fp32)
	if !r.bf16o {
		o.Set("zero_stage", zeroStage(r.l.Zero))
	}
	o.Set("group_paddings", paddings)
	o.Set("partition_count", counts)
	if r.c.Version != "" {
		o.Set("ds_version", r.c.Version)
	}
	o.Set("param_slice_mappings", mappings)
	return r.optimFile(o), nil
}

// groupState is torch's state of one flat group.
func (r *rankPlan) groupState(fills torchfile.Fills, g int, ps []*cut, f flat) (*torch.Dict, error) {
	st := torch.NewDict()
	s, err := step(ps)
	if err != nil {
		return nil, err
	}
	if s != nil && !r.stepInGroup(g) {
		st.Set("step", s)
	}
	for _, name := range r.states {
		if d, ok := stateType(ps, name); ok {
			st.Set(name, fills.Tensor(d, []int64{f.size}, r.spans(f, name, d)...))
		}
	}
	return st, nil
}

// stepInGroup tells that the optimizer keeps its step in param_groups.
func (t *target) stepInGroup(g int) bool {
	if g >= len(t.c.Groups) {
		return false
	}
	_, ok := t.c.Groups[g].Get("step")
	return ok
}

func (f *flat) mapping() *torch.Dict {
	d := torch.NewOrderedDict()
	for _, m := range f.members {
		d.Set(m.name, torch.NewObject("deepspeed.utils.tensor_fragment", "fragment_address",
			torch.NewDict("numel", m.len, "start", m.start)))
	}
	return d
}

// paramGroups are the hyper-parameters, with the numbers of their parameters.
func (t *target) paramGroups(numbers func(g int) []int64) *torch.List {
	out := torch.NewList()
	for g := range max(t.groups, 1) {
		d := torch.NewDict()
		if g < len(t.c.Groups) {
			d = t.c.Groups[g].Copy()
		}
		if t.moe != nil && t.moe.groups[g] {
			d.Set("name", t.moe.groupName())
		}
		l := torch.NewList()
		for _, n := range numbers(g) {
			l.Items = append(l.Items, n)
		}
		d.Set("params", l)
		out.Items = append(out.Items, d)
	}
	return out
}

// optimBase is the global state that the source's optimizer dict carries, with
// what DeepSpeed needs and the source lacks.
func (t *target) optimBase() *torch.Dict {
	o := torch.NewDict()
	if t.c.Optim != nil {
		o = t.c.Optim.Copy()
	}
	for _, k := range []string{"optimizer_state_dict", "fp32_flat_groups", "param_groups", "partition_count", "group_paddings",
		"zero_stage", "ds_version", "param_slice_mappings", "base_optimizer_state_step", "ds_zero_partition_groups"} {
		o.Delete(k)
	}
	if t.bf16o {
		return o
	}
	defaults := []torch.Pair{
		{Key: "loss_scaler", Value: torch.NewObject("deepspeed.runtime.fp16.loss_scaler", "LossScaler",
			torch.NewDict("cur_scale", 1.0, "dynamic", false))},
		{Key: "dynamic_loss_scale", Value: false},
		{Key: "overflow", Value: false},
	}
	if t.l.Zero < 3 {
		clip, ok := t.config.Get("gradient_clipping")
		if !ok {
			clip = 0.0
		}
		defaults = append(defaults, torch.Pair{Key: "clip_grad", Value: clip})
	} else {
		o.Delete("clip_grad")
	}
	for _, d := range defaults {
		if _, ok := o.Get(d.Key); !ok {
			o.Set(d.Key, d.Value)
		}
	}
	return o
}

// zeroStage is a member of ZeroStageEnum, pickled by value: every Python reads
// that.
func zeroStage(n int) *torch.Object {
	return &torch.Object{
		Class: &torch.Class{Module: "deepspeed.runtime.zero.config", Name: "ZeroStageEnum"},
		Make:  torch.Reduce, Args: torch.NewTuple(int64(n)),
	}
}

// optimFile is the file around an optimizer dict.
func (t *target) optimFile(o *torch.Dict) *torch.Dict {
	d := torch.NewDict("optimizer_state_dict", o)
	if c := t.dsConfig(); c != nil {
		d.Set("ds_config", c)
	}
	if t.c.Version != "" {
		d.Set("ds_version", t.c.Version)
	}
	return d
}

// dsConfig is the configuration with the target's ZeRO stage.
func (t *target) dsConfig() *torch.Dict {
	if t.config == nil {
		return nil
	}
	c := t.config.Copy()
	z := torch.NewDict()
	if old := sub(c, "zero_optimization"); old != nil {
		z = old.Copy()
	}
	z.Set("stage", int64(t.l.Zero))
	c.Set("zero_optimization", z)
	return c
}
