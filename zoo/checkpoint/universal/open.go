package universal

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
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Is reports whether a folder of a store is a universal checkpoint.
func Is(s weights.Store, folder string) bool {
	i, err := s.Stat(path.Join(folder, "zero"))
	return err == nil && i.Dir
}

// reader is the state of reading.
type reader struct {
	c      *atom.Checkpoint
	book   *atom.Book
	shapes map[string][]int64 // of trained parameters, from the model files
	groups map[string]int
	order  []string
	frozen map[string]bool
	stages map[string][]int
	tied   map[string]string // alias -> stored
	buffer map[string]bool
}

// Open reads a universal checkpoint. given replaces its rules; nil keeps them.
func Open(s weights.Store, folder string, given *spec.Spec) (*atom.Checkpoint, error) {
	c := &atom.Checkpoint{Format: "universal", Store: s, Folder: folder, Topology: atom.Topology{TP: 1, PP: 1, DP: 1, Zero: 1}}
	r := &reader{c: c, book: atom.NewBook(c), shapes: map[string][]int64{}, groups: map[string]int{},
		frozen: map[string]bool{}, stages: map[string][]int{}, tied: map[string]string{}, buffer: map[string]bool{}}
	err := r.run(given)
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func bad(file, format string, args ...any) error {
	return fault.New(fault.BadModel, format, args...).InFile(file)
}

func (r *reader) run(given *spec.Spec) error {
	if err := r.models(given); err != nil {
		return err
	}
	if err := r.optimizer(); err != nil {
		return err
	}
	zero := path.Join(r.c.Folder, "zero")
	entries, err := r.c.Store.List(zero)
	if err != nil {
		return err
	}
	found := map[string]*atom.Param{}
	var names []string
	for _, e := range entries {
		if !e.Dir {
			continue
		}
		p, err := r.param(path.Base(e.Name), e.Name)
		if err != nil {
			return err
		}
		found[p.Name] = p
		names = append(names, p.Name)
	}
	// The model's order comes first, then what it does not list.
	for _, n := range append(r.order, names...) {
		if p := found[n]; p != nil {
			r.c.Params = append(r.c.Params, p)
			delete(found, n)
		} else if r.shapes[n] != nil && !slices.Contains(names, n) {
			return bad(zero, "parameter %s is listed by the model-states files, but has no folder", n)
		}
	}
	if err := r.carried(); err != nil {
		return err
	}
	for alias, stored := range r.tied {
		if p := r.c.Param(stored); p != nil && r.c.Param(alias) == nil {
			p.Aliases = append(p.Aliases, alias)
			slices.Sort(p.Aliases)
		}
	}
	return nil
}

// models reads the model-states files that were copied along.
func (r *reader) models(given *spec.Spec) error {
	entries, err := r.c.Store.List(r.c.Folder)
	if err != nil {
		return err
	}
	var first *torch.Dict
	maxMP := 0
	for _, e := range entries {
		name := path.Base(e.Name)
		var mp, dp int
		if !strings.HasSuffix(name, "_model_states.pt") {
			continue
		}
		if n, _ := fmt.Sscanf(name, "mp_rank_%d_model_states.pt", &mp); n != 1 {
			if n, _ := fmt.Sscanf(strings.TrimPrefix(name, "bf16_"), "zero_pp_rank_%d_mp_rank_%d_model_states.pt", &dp, &mp); n != 2 {
				continue
			}
		}
		maxMP = max(maxMP, mp)
		m := atom.ModelState{File: name, TP: mp, DP: dp}
		if dp == 0 {
			v, err := r.book.Open(e.Name)
			if err != nil {
				return err
			}
			d, ok := v.(*torch.Dict)
			if !ok {
				return bad(e.Name, "file does not hold a dict")
			}
			m.Root = d
			if first == nil {
				first = d
			}
		}
		r.c.Models = append(r.c.Models, m)
	}
	slices.SortFunc(r.c.Models, func(a, b atom.ModelState) int { return (a.TP-b.TP)<<16 + a.DP - b.DP })
	if v, ok := first.Get(Stub); ok && v == true {
		defer func() { r.c.Models = nil }()
	}
	for i := range r.c.Models {
		if d := r.c.Models[i].Root; d != nil {
			if err := r.model(d, i); err != nil {
				return bad(path.Join(r.c.Folder, r.c.Models[i].File), "%w", err)
			}
		}
	}
	v, _ := first.Get("universal_checkpoint_info")
	d, _ := v.(*torch.Dict)
	if r.c.Spec, err = spec.FromInfo(d); err != nil {
		return bad(r.c.Folder, "universal_checkpoint_info: %w", err)
	}
	if given != nil {
		info := r.c.Spec
		r.c.Spec = given
		given.Info = info.Info
		if given.OriginalVocab == 0 {
			given.OriginalVocab, given.PaddedVocab = info.OriginalVocab, info.PaddedVocab
		}
	}
	ver, _ := first.Get("ds_version")
	r.c.Version, _ = ver.(string)
	cfg, _ := first.Get("ds_config")
	r.c.Config, _ = cfg.(*torch.Dict)
	return nil
}

// model takes names, shapes and groups from one model-states file.
func (r *reader) model(d *torch.Dict, index int) error {
	v, _ := d.Get("param_shapes")
	groups, _ := spec.Items(v)
	for g, gv := range groups {
		gd, ok := gv.(*torch.Dict)
		if !ok {
			return fmt.Errorf("param_shapes[%d] is %T", g, gv)
		}
		for _, kv := range gd.Pairs() {
			name, _ := kv.Key.(string)
			if _, ok := r.groups[name]; !ok {
				r.groups[name] = g
				r.order = append(r.order, name)
			}
			if s, ok := kv.Value.(torch.Size); ok && len(r.c.Models) >= 1 {
				if _, ok := r.shapes[name]; !ok {
					r.shapes[name] = atom.Dims(s)
				}
			}
		}
	}
	fv, _ := d.Get("frozen_param_shapes")
	if fd, ok := fv.(*torch.Dict); ok {
		for _, kv := range fd.Pairs() {
			name, _ := kv.Key.(string)
			r.frozen[name] = true
		}
	}
	bv, _ := d.Get("buffer_names")
	buffers, _ := spec.Items(bv)
	for _, b := range buffers {
		if s, ok := b.(string); ok {
			r.buffer[s] = true
		}
	}
	tv, _ := d.Get("shared_params")
	if td, ok := tv.(*torch.Dict); ok {
		for _, kv := range td.Pairs() {
			a, _ := kv.Key.(string)
			s, _ := kv.Value.(string)
			r.tied[a] = s
		}
	}
	return nil
}

// optimizer reads optimizer_state.pt if it is there.
func (r *reader) optimizer() error {
	name := path.Join(r.c.Folder, "zero", "optimizer_state.pt")
	ok, err := weights.Exists(r.c.Store, name)
	if err != nil || !ok {
		return err
	}
	v, err := r.book.Open(name)
	if err != nil {
		return err
	}
	d, ok := v.(*torch.Dict)
	if !ok {
		return bad(name, "file does not hold a dict")
	}
	r.c.Optim = d.Copy()
	gv, _ := d.Get("param_groups")
	groups, _ := spec.Items(gv)
	for _, g := range groups {
		if gd, ok := g.(*torch.Dict); ok {
			r.c.Groups = append(r.c.Groups, gd)
		}
	}
	r.c.Optim.Delete("param_groups")
	r.c.Optim.Delete("fp32_flat_groups")
	if _, three := r.c.Optim.Get("optimizer_state_dict"); three {
		r.c.Topology.Zero = 3
	}
	return nil
}

// param reads the folder of one parameter.
func (r *reader) param(name, dir string) (*atom.Param, error) {
	p := &atom.Param{Name: name, Group: r.groups[name], Stages: []int{0}}
	entries, err := r.c.Store.List(dir)
	if err != nil {
		return nil, err
	}
	var rule *spec.Match
	for _, e := range entries {
		state, ok := strings.CutSuffix(path.Base(e.Name), ".pt")
		if e.Dir || !ok {
			continue
		}
		v, err := r.book.Open(e.Name)
		if err != nil {
			return nil, err
		}
		if state == "step" {
			p.Step = v
			continue
		}
		t, m, err := r.state(name, v)
		if err != nil {
			return nil, bad(e.Name, "%w", err)
		}
		if m != nil && rule == nil {
			rule = m
		}
		if p.Shape != nil && !slices.Equal(p.Shape, t.Shape) {
			return nil, bad(e.Name, "shape %v differs from shape %v of the other states", t.Shape, p.Shape)
		}
		p.Shape = t.Shape
		p.SetState(state, t)
	}
	if len(p.States) == 0 {
		return nil, bad(dir, "parameter folder has no state files")
	}
	slices.SortStableFunc(p.States, func(a, b atom.State) int {
		switch {
		case a.Name == atom.FP32 && b.Name != atom.FP32:
			return -1
		case b.Name == atom.FP32 && a.Name != atom.FP32:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return p, r.rule(p, rule)
}

// rule joins what the rules say and what the files say.
func (r *reader) rule(p *atom.Param, file *spec.Match) error {
	m, err := r.c.Spec.Match(p.Name)
	if err != nil {
		return bad(r.c.Folder, "%w", err)
	}
	p.Rule = m
	if file != nil && m.Pattern == "" {
		file.Vocabulary = file.Vocabulary || m.Vocabulary
		file.PipelineReplicated, file.Expert = m.PipelineReplicated, m.Expert || file.Expert
		p.Rule = *file
	}
	if strings.Contains(p.Name, ".deepspeed_moe.experts.deepspeed_experts.") {
		p.Rule.Expert = true
	}
	return nil
}

// state reads the value of one state file.
func (r *reader) state(name string, v torch.Value) (*atom.Tensor, *spec.Match, error) {
	switch x := v.(type) {
	case *torch.Tensor:
		t := r.book.Tensor(x)
		shape, ok := r.shapes[name]
		if !ok || geometry.Numel(shape) != t.Numel() {
			return t, nil, nil // flat, and nothing says its shape
		}
		t, err := t.Reshape(shape)
		return t, nil, err
	case *torch.Dict:
		pv, _ := x.Get("param")
		t, ok := pv.(*torch.Tensor)
		if !ok {
			return nil, nil, fmt.Errorf("dict has no tensor under param")
		}
		m, err := match(x)
		return r.book.Tensor(t), m, err
	}
	return nil, nil, fmt.Errorf("%T is no universal state", v)
}

// match reads the metadata of the dict dialect.
func match(d *torch.Dict) (*spec.Match, error) {
	m := &spec.Match{Kind: spec.Replicated}
	if v, ok := d.Get("cat_dim"); ok {
		n, _ := v.(int64)
		m.Kind, m.Dim = spec.Fragment, int(n)
	}
	if v, ok := d.Get("param_n_sub_params"); ok {
		n, _ := v.(int64)
		m.Kind, m.Count = spec.Fragment, int(n)
	}
	if v, ok := d.Get("sub_param_shape"); ok {
		s, err := spec.ParseSubShape(v)
		if err != nil {
			return nil, fmt.Errorf("sub_param_shape: %w", err)
		}
		m.Kind, m.Sub, m.Dim = spec.Fragment, s, s.Dim
	}
	if v, ok := d.Get("vocab_tensor"); ok {
		m.Vocabulary, _ = v.(bool)
	}
	if v, ok := d.Get("is_expert_param"); ok {
		m.Expert, _ = v.(bool)
	}
	return m, nil
}

// carried adds what the model files hold beside the trained parameters:
// buffers, frozen and tied parameters, and the weights of the model itself.
func (r *reader) carried() error {
	if len(r.c.Models) > 0 && r.c.Models[0].Root != nil {
		mv, _ := r.c.Models[0].Root.Get("module")
		module, _ := mv.(*torch.Dict)
		r.tieByStorage(module)
		for _, kv := range module.Pairs() {
			name, _ := kv.Key.(string)
			t, ok := kv.Value.(*torch.Tensor)
			if !ok {
				continue
			}
			if p := r.c.Param(name); p != nil {
				r.c.ModuleType = t.DType
				if slices.Equal(atom.Dims(t.Shape), p.Shape) && len(t.Shape) > 0 {
					p.SetState(atom.Module, r.book.Tensor(t))
				}
				continue
			}
			if r.tied[name] != "" || geometry.Numel(atom.Dims(t.Shape)) == 0 {
				continue
			}
			if r.c.ModuleType == tensor.Invalid && !r.buffer[name] {
				r.c.ModuleType = t.DType
			}
			p := &atom.Param{Name: name, Shape: atom.Dims(t.Shape), Kind: atom.Buffer, Group: -1, Stages: []int{0}}
			p.Rule.Kind = spec.Replicated
			if r.frozen[name] || !r.buffer[name] && len(r.buffer) > 0 {
				p.Kind = atom.Frozen
			}
			p.SetState(atom.Module, r.book.Tensor(t))
			r.c.Params = append(r.c.Params, p)
		}
	}
	if err := r.frozenSlices(); err != nil {
		return err
	}
	return r.extra()
}

// tieByStorage finds tied parameters that shared_params does not list: names
// whose tensors are one view of one storage.
func (r *reader) tieByStorage(module *torch.Dict) {
	type view struct {
		s      *torch.Storage
		offset int64
	}
	known := map[view]string{}
	for _, stored := range []bool{true, false} {
		for _, kv := range module.Pairs() {
			name, _ := kv.Key.(string)
			t, ok := kv.Value.(*torch.Tensor)
			if !ok || t.Storage.Elements == 0 || stored != (r.c.Param(name) != nil) {
				continue
			}
			v := view{t.Storage, t.StorageOffset}
			if stored {
				known[v] = name
			} else if of, ok := known[v]; ok && slices.Equal(atom.Dims(t.Shape), r.c.Param(of).Shape) && !r.frozen[name] && !r.buffer[name] {
				r.tied[name] = of
			}
		}
	}
}

// extra reads lathe's own file of buffers.
func (r *reader) extra() error {
	name := path.Join(r.c.Folder, Extra)
	ok, err := weights.Exists(r.c.Store, name)
	if err != nil || !ok {
		return err
	}
	v, err := r.book.Open(name)
	if err != nil {
		return err
	}
	root, _ := v.(*torch.Dict)
	get := func(key string) *torch.Dict {
		v, _ := root.Get(key)
		d, _ := v.(*torch.Dict)
		return d
	}
	for _, kv := range get("groups").Pairs() {
		n, _ := kv.Key.(string)
		g, _ := kv.Value.(int64)
		if p := r.c.Param(n); p != nil {
			p.Group = int(g)
		}
	}
	if order := get("groups"); order.Len() > 0 && len(r.order) == 0 {
		place := map[string]int{}
		for i, kv := range order.Pairs() {
			n, _ := kv.Key.(string)
			place[n] = i + 1
		}
		slices.SortStableFunc(r.c.Params, func(a, b *atom.Param) int {
			if place[a.Name] == 0 || place[b.Name] == 0 {
				return 0
			}
			return place[a.Name] - place[b.Name]
		})
	}
	for _, kv := range get("tensors").Pairs() {
		n, _ := kv.Key.(string)
		t, ok := kv.Value.(*torch.Tensor)
		if !ok {
			return bad(name, "%s is no tensor", n)
		}
		if r.c.Param(n) != nil {
			continue
		}
		p := &atom.Param{Name: n, Shape: atom.Dims(t.Shape), Kind: atom.Buffer, Group: -1, Stages: []int{0}}
		p.Rule.Kind = spec.Replicated
		if k, _ := get("kinds").Get(n); k == atom.Frozen.String() {
			p.Kind = atom.Frozen
		}
		if pv, ok := get("places").Get(n); ok {
			items, _ := spec.Items(pv)
			for _, it := range items {
				if pair, err := spec.Items(it); err == nil && len(pair) == 2 {
					layer, _ := pair[0].(int64)
					key, _ := pair[1].(string)
					p.Places = append(p.Places, atom.Place{Layer: int(layer), Key: key})
				}
			}
		}
		p.SetState(atom.Module, r.book.Tensor(t))
		r.c.Params = append(r.c.Params, p)
	}
	return nil
}
