package deepspeed

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// localPiece is where a state of a local parameter lies.
type localPiece struct {
	dtype  tensor.DType
	frags  []atom.Frag
	stride []int64
}

// part is the optimizer state that one data-parallel rank holds.
type part struct {
	file    string
	dp      int
	optim   *torch.Dict
	fp32    []*torch.Tensor
	states  []*torch.Dict // per group: name -> tensor or scalar
	mapping []*torch.Dict // per group: name -> fragment_address; nil if absent
	counts  []int
}

// rankOptimizer reads the optimizer files of one model-parallel rank.
func (r *reader) rankOptimizer(rk *rank, files []rankFile) error {
	var parts []*part
	for _, f := range files {
		d, err := r.openDict(f.name)
		if err != nil {
			return err
		}
		o := sub(d, "optimizer_state_dict")
		if o == nil {
			return bad(r.file(f.name), "file has no optimizer_state_dict")
		}
		parts = append(parts, &part{file: r.file(f.name), dp: f.b, optim: o})
		if r.c.Config == nil {
			r.c.Config = sub(d, "ds_config")
		}
		if r.c.Version == "" {
			r.c.Version = text(d, "ds_version")
		}
	}
	if _, three := parts[0].optim.Get("fp32_flat_groups"); three {
		r.c.Topology.Zero = 3
		return r.zero3(rk, parts)
	}
	r.c.Topology.Zero = 1
	if v, ok := parts[0].optim.Get("zero_stage"); ok {
		n, known := stage(v)
		if !known || n > 2 {
			return bad(parts[0].file, "zero_stage is neither 1 nor 2")
		}
		r.c.Topology.Zero = max(n, 1)
	}
	for _, p := range parts {
		if err := p.read12(); err != nil {
			return bad(p.file, "%w", err)
		}
	}
	if r.c.Optim == nil {
		r.carry(parts[0], "base_optimizer_state", "param_slice_mappings", "single_partition_of_fp32_groups")
	}
	for g := range parts[0].fp32 {
		if err := r.group12(rk, g, parts); err != nil {
			return fault.New(fault.BadModel, "%w", err).InFile(parts[0].file)
		}
	}
	return nil
}

// carry keeps the small part of the first rank's optimizer dict.
func (r *reader) carry(p *part, without ...string) {
	r.c.Optim = p.optim.Copy()
	for _, k := range without {
		r.c.Optim.Delete(k)
	}
	base := sub(p.optim, "base_optimizer_state")
	if base == nil {
		base = sub(p.optim, "optimizer_state_dict")
	}
	for _, v := range items(base, "param_groups") {
		if d, ok := v.(*torch.Dict); ok {
			r.c.Groups = append(r.c.Groups, d)
		}
	}
	if len(r.c.Groups) == 0 { // the elastic form has no param_groups
		r.c.Groups = r.elasticGroups(p)
	}
}

// elasticGroups rebuilds the hyper-parameters that an elastic checkpoint leaves
// out, from the configuration.
func (r *reader) elasticGroups(p *part) []*torch.Dict {
	params := sub(sub(r.c.Config, "optimizer"), "params")
	var out []*torch.Dict
	for g := range p.fp32 {
		d := torch.NewDict()
		for _, kv := range params.Pairs() {
			d.Set(kv.Key, kv.Value)
		}
		if v, ok := p.optim.Get("base_optimizer_state_step"); ok {
			d.Set("step", v)
		}
		d.Set("params", torch.NewList(int64(g)))
		out = append(out, d)
	}
	if len(out) > 0 {
		r.c.Warnf("the elastic checkpoint has no param_groups; hyper-parameters come from its ds_config")
	}
	return out
}

// read12 takes a ZeRO-1/2 or BF16 optimizer dict apart.
func (p *part) read12() error {
	for i, v := range items(p.optim, "single_partition_of_fp32_groups") {
		t, ok := v.(*torch.Tensor)
		if !ok {
			return fmt.Errorf("single_partition_of_fp32_groups[%d] is no tensor", i)
		}
		p.fp32 = append(p.fp32, t)
	}
	if len(p.fp32) == 0 {
		return fmt.Errorf("single_partition_of_fp32_groups is missing or empty")
	}
	base, _ := p.optim.Get("base_optimizer_state")
	switch b := base.(type) {
	case *torch.Dict:
		st := sub(b, "state")
		for g := range p.fp32 {
			v, _ := st.Get(int64(g))
			d, _ := v.(*torch.Dict)
			if d == nil {
				d = torch.NewDict() // a group that was never stepped
			}
			p.states = append(p.states, withStep(d, items(b, "param_groups"), g))
		}
	case *torch.List: // elastic_checkpoint
		for _, v := range b.Items {
			d, ok := v.(*torch.Dict)
			if !ok {
				return fmt.Errorf("an elastic group state is %T, not a dict", v)
			}
			if _, has := d.Get("step"); !has {
				if s, ok := p.optim.Get("base_optimizer_state_step"); ok {
					d = d.Copy()
					d.Set("step", s)
				}
			}
			p.states = append(p.states, d)
		}
		if len(p.states) != len(p.fp32) {
			return fmt.Errorf("%d elastic group states for %d groups", len(p.states), len(p.fp32))
		}
	case nil:
		p.states = make([]*torch.Dict, len(p.fp32))
	default:
		return fmt.Errorf("base_optimizer_state is %T", base)
	}
	for _, v := range items(p.optim, "param_slice_mappings") {
		d, _ := v.(*torch.Dict)
		p.mapping = append(p.mapping, d)
	}
	for _, v := range items(p.optim, "partition_count") {
		n, _ := integer(v)
		p.counts = append(p.counts, int(n))
	}
	return nil
}

// withStep adds a step that the optimizer keeps in its param_groups.
func withStep(d *torch.Dict, groups []torch.Value, g int) *torch.Dict {
	if _, has := d.Get("step"); has || g >= len(groups) {
		return d
	}
	pg, _ := groups[g].(*torch.Dict)
	s, ok := pg.Get("step")
	if !ok {
		return d
	}
	d = d.Copy()
	d.Set("step", s)
	return d
}

// stateTensors lists the partition-shaped states of a group, master weights
// first.
func (p *part) stateTensors(g int) (names []string, tensors []*torch.Tensor, step torch.Value, err error) {
	names, tensors = []string{atom.FP32}, []*torch.Tensor{p.fp32[g]}
	size := p.partition(g)
	for _, kv := range p.states[g].Pairs() {
		name, _ := kv.Key.(string)
		if name == "step" {
			if s, ok := scalar(kv.Value); ok {
				step = s
			}
			continue
		}
		t, ok := kv.Value.(*torch.Tensor)
		if !ok || len(t.Shape) == 0 {
			continue
		}
		if len(t.Shape) != 1 || int64(t.Shape[0]) > size {
			return nil, nil, nil, fault.New(fault.Unsupported, "optimizer state %s of group %d has shape %v, but the partition has %d elements", name, g, t.Shape, size).
				InFile(p.file).Hint("states that keep whole parameters (Muon) have no layout to take them apart by; drop them with --drop-state %s", name)
		}
		names, tensors = append(names, name), append(tensors, t)
	}
	return names, tensors, step, nil
}

// partition is the number of elements of the flat partition. The recorded
// group_paddings are wrong in some versions and the master weights may be shown
// without padding, but their storage keeps it.
func (p *part) partition(g int) int64 {
	t := p.fp32[g]
	n := int64(0)
	if len(t.Shape) == 1 {
		n = int64(t.Shape[0])
	}
	return max(n, t.Storage.Elements-t.StorageOffset)
}

// group12 enters all fragments of a flat group.
func (r *reader) group12(rk *rank, g int, parts []*part) error {
	count := len(parts)
	if r.c.Topology.DP > count {
		count = r.c.Topology.DP
	}
	if g < len(parts[0].counts) && parts[0].counts[g] > 0 {
		count = parts[0].counts[g]
	}
	if count > maxRanks {
		return fmt.Errorf("partition_count of group %d is %d", g, count)
	}
	if dp := r.c.Topology.DP; count < dp {
		return r.expertGroup(rk, g, parts, count)
	}
	return r.flatGroup(rk, g, parts, count, func(name string) string { return name })
}

// flatGroup enters a group that is cut over the given parts, in order.
func (r *reader) flatGroup(rk *rank, g int, parts []*part, count int, rename func(string) string) error {
	layout, err := r.groupLayout(rk, g, parts, count)
	if err != nil {
		return err
	}
	filled := map[string]int64{}
	for i, p := range parts {
		names, tensors, step, err := p.stateTensors(g)
		if err != nil {
			return err
		}
		for _, f := range layout.frags[i] {
			l, err := r.localFor(rk, rename(f.name), layout, f.name, g)
			if err != nil {
				return err
			}
			if l.step == nil {
				l.step = step
			} else if step != nil && !SameScalar(l.step, step) {
				return fmt.Errorf("%s: step differs between data-parallel ranks", l.name)
			}
			at := f.at
			if at < 0 {
				at = filled[f.name]
			}
			filled[f.name] += f.len
			if f.len == 0 {
				continue
			}
			for k, name := range names {
				frag, err := r.book.Flat(tensors[k], f.start, f.len, at)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", f.name, name, err)
				}
				if err := l.addFrag(name, tensors[k].DType, frag); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *local) addFrag(name string, d tensor.DType, f atom.Frag) error {
	for i := range l.states {
		if s := &l.states[i]; s.name == name {
			if s.piece.dtype != d {
				return fmt.Errorf("%s, %s has element types %s and %s", l.name, name, s.piece.dtype, d)
			}
			s.piece.frags = append(s.piece.frags, f)
			return nil
		}
	}
	l.states = append(l.states, localState{name, localPiece{dtype: d, frags: []atom.Frag{f}}})
	return nil
}

// fragment is a run of a parameter in a partition.
type fragment struct {
	name           string
	start, len, at int64 // in the partition, and in the parameter (-1: unknown, in order)
}

// groupLayout is how a flat group lies over its parts.
type groupLayout struct {
	shapes map[string][]int64
	frags  [][]fragment // per part
}

// groupLayout takes the recorded fragments, or computes them, and cross-checks
// one with the other.
func (r *reader) groupLayout(rk *rank, g int, parts []*part, count int) (*groupLayout, error) {
	lay := &groupLayout{shapes: map[string][]int64{}, frags: make([][]fragment, len(parts))}
	var computed [][]fragment
	if g < len(rk.groups) && count >= r.c.Topology.DP {
		gr := rk.groups[g]
		for i, n := range gr.names {
			lay.shapes[n] = gr.shapes[i]
		}
		computed = computeFragments(gr, parts, count)
	}
	for i, p := range parts {
		if g < len(p.mapping) && p.mapping[g] != nil {
			fr, err := recorded(p.mapping[g])
			if err != nil {
				return nil, err
			}
			lay.frags[i] = fr
			continue
		}
		if computed == nil {
			return nil, fmt.Errorf("group %d has neither param_slice_mappings nor param_shapes", g)
		}
		lay.frags[i] = computed[i]
	}
	if computed == nil {
		return lay, nil
	}
	for i := range parts {
		if !sameFragments(lay.frags[i], computed[i]) {
			r.c.Warnf("%s: the recorded fragments of group %d differ from those that param_shapes gives; the recorded ones are used", parts[i].file, g)
			continue
		}
		lay.frags[i] = computed[i] // the same, with places
	}
	return lay, nil
}

// computeFragments cuts the group into count partitions.
func computeFragments(gr group, parts []*part, count int) [][]fragment {
	total := int64(0)
	for _, s := range gr.shapes {
		total += geometry.Numel(s)
	}
	size := geometry.FlatPartition(total, int64(count))
	out := make([][]fragment, len(parts))
	for i, p := range parts {
		own := geometry.Range{Start: int64(p.dp) * size, Len: size}
		at := int64(0)
		for k, n := range gr.names {
			whole := geometry.Range{Start: at, Len: geometry.Numel(gr.shapes[k])}
			if c := whole.Intersect(own); c.Len > 0 {
				out[i] = append(out[i], fragment{n, c.Start - own.Start, c.Len, c.Start - at})
			}
			at += whole.Len
		}
	}
	return out
}

func recorded(d *torch.Dict) ([]fragment, error) {
	var out []fragment
	for _, kv := range d.Pairs() {
		name, _ := kv.Key.(string)
		o, ok := kv.Value.(*torch.Object)
		if !ok {
			return nil, fmt.Errorf("param_slice_mappings of %s is %T", name, kv.Value)
		}
		n, err1 := field(o, "numel", 0)
		start, err2 := field(o, "start", 1)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("param_slice_mappings of %s has no numel and start", name)
		}
		out = append(out, fragment{name, start, n, -1})
	}
	return out, nil
}

// field reads an attribute of a fragment_address, which is a dataclass or, in
// some versions, a tuple class.
func field(o *torch.Object, name string, place int) (int64, error) {
	v, ok := o.Attr(name)
	if !ok && o.Args != nil && place < len(o.Args.Items) {
		v, ok = o.Args.Items[place], true
	}
	n, isInt := integer(v)
	if !ok || !isInt {
		return 0, fmt.Errorf("no %s", name)
	}
	return n, nil
}

func sameFragments(a, b []fragment) bool {
	drop := func(f fragment) bool { return f.len == 0 }
	a, b = slices.DeleteFunc(slices.Clone(a), drop), slices.DeleteFunc(slices.Clone(b), drop)
	return slices.EqualFunc(a, b, func(x, y fragment) bool {
		return x.name == y.name && x.start == y.start && x.len == y.len
	})
}
