package deepspeed

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// modelBase is the model-states dict of a rank, with everything that the source
// carries for it (client state included) and the target's own numbers.
func (r *rankPlan) modelBase() *torch.Dict {
	m := torch.NewDict("module", nil, "buffer_names", nil, "optimizer", nil, "param_shapes", nil,
		"frozen_param_shapes", nil, "shared_params", torch.NewDict(), "frozen_param_fragments", nil,
		"lr_scheduler", nil, "data_sampler", nil, "random_ltd", nil, "skipped_steps", int64(0),
		"global_steps", int64(0), "global_samples", int64(0))
	if src := r.nearest(); src != nil {
		m = src.Copy()
	}
	m.Set("dp_world_size", int64(r.l.DP))
	m.Set("mp_world_size", int64(r.l.TP*r.l.PP))
	if c := r.dsConfig(); c != nil {
		m.Set("ds_config", c)
	}
	if d := sub(m, "checkpoint_parallel_dimensions"); d != nil {
		d = d.Copy()
		d.Set("pp_degree", int64(r.l.PP))
		d.Set("tp_degree", int64(r.l.TP))
		m.Set("checkpoint_parallel_dimensions", d)
	}
	if r.c.Spec.Info != nil || len(r.c.Spec.Rules) > 0 {
		s := *r.c.Spec
		if r.pad > 0 {
			s.PaddedVocab = r.pad
		}
		m.Set("universal_checkpoint_info", s.ToInfo())
	}
	if r.moe == nil {
		names := torch.NewList()
		for _, p := range r.others {
			if p.Kind == atom.Buffer {
				names.Items = append(names.Items, p.Name)
			}
		}
		m.Set("buffer_names", names)
		tied := torch.NewDict()
		for _, p := range r.params {
			if p.on(r.pp) {
				for _, a := range p.Aliases {
					tied.Set(a, p.Name)
				}
			}
		}
		m.Set("shared_params", tied)
	}
	return m
}

// nearest is the source's model-states dict that this rank continues.
func (r *rankPlan) nearest() *torch.Dict {
	var best *torch.Dict
	for _, m := range r.c.Models {
		if m.Root == nil {
			continue
		}
		if best == nil || m.PP == r.pp && m.TP == r.tp {
			best = m.Root
		}
	}
	return best
}

func (r *rankPlan) shapesOf(ps []*cut) *torch.Dict {
	d := torch.NewOrderedDict()
	for _, p := range ps {
		d.Set(p.Name, torch.Size(atom.Ints(p.views[r.tp].Local)))
	}
	return d
}

// frozen sets the entries of frozen parameters; none keeps them None.
func (r *rankPlan) frozen(m *torch.Dict, fragment func(*cut, *atom.Tensor) *torch.Tensor) {
	shapes, frags := torch.NewOrderedDict(), torch.NewOrderedDict()
	for _, p := range r.others {
		if p.Kind == atom.Frozen {
			shapes.Set(p.Name, torch.Size(atom.Ints(p.views[r.tp].Local)))
			frags.Set(p.Name, fragment(p, p.Weight()))
		}
	}
	if shapes.Len() == 0 || r.l.Zero < 2 {
		m.Set("frozen_param_shapes", nil)
		m.Set("frozen_param_fragments", nil)
		return
	}
	m.Set("frozen_param_shapes", shapes)
	m.Set("frozen_param_fragments", frags)
}

func (r *rankPlan) modelBytes() int64 {
	if r.pipe {
		return 0
	}
	n := int64(0)
	for _, p := range r.params {
		if p.on(r.pp) && !r.moe.has(p) {
			_, d := r.weight(p)
			n += p.numel(r.tp) * int64(d.Size())
		}
	}
	return n
}

// model is the model-states file of a rank of ZeRO-1/2.
func (r *rankPlan) model(fills torchfile.Fills) (torch.Value, error) {
	m := r.modelBase()
	made := map[*cut]*torch.Tensor{}
	if r.pipe {
		m.Set("module", nil)
	} else {
		m.Set("module", r.state(fills, made))
	}
	if r.moe == nil {
		shapes := torch.NewList()
		for _, ps := range r.groups {
			shapes.Items = append(shapes.Items, r.shapesOf(ps))
		}
		m.Set("param_shapes", shapes)
		r.frozen(m, func(p *cut, t *atom.Tensor) *torch.Tensor {
			if w := made[p]; w != nil {
				return torch.ViewOf(w.Storage, w.Shape, 0)
			}
			return r.whole(fills, p, t, t.DType)
		})
	}
	return m, nil
}

// state is the model's state dict, in the source's order where it tells one.
func (r *rankPlan) state(fills torchfile.Fills, made map[*cut]*torch.Tensor) *torch.Dict {
	byName := map[string]*cut{}
	var names []string
	for _, p := range r.params {
		if !p.on(r.pp) || r.moe.has(p) {
			continue
		}
		for _, n := range append([]string{p.Name}, p.Aliases...) {
			byName[n] = p
			names = append(names, n)
		}
	}
	d := torch.NewOrderedDict()
	put := func(name string, p *cut) {
		w := made[p]
		if w == nil {
			t, dt := r.weight(p)
			w = r.whole(fills, p, t, dt)
			made[p] = w
		}
		d.Set(name, torch.ViewOf(w.Storage, w.Shape, 0))
	}
	if old := sub(r.nearest(), "module"); old != nil {
		d.Attrs = old.Attrs
		for _, kv := range old.Pairs() {
			name, _ := kv.Key.(string)
			if p := byName[name]; p != nil {
				put(name, p)
			} else if _, isTensor := kv.Value.(*torch.Tensor); !isTensor {
				d.Set(kv.Key, kv.Value) // extra state
			}
		}
	}
	for _, n := range names {
		if _, ok := d.Get(n); !ok {
			put(n, byName[n])
		}
	}
	return d
}

// layers plans the layer files of a pipeline module: the weights of each layer
// by tensor-parallel rank, whatever the stages are.
func (w *writer) layers() {
	byLayer := map[int][]atom.Place{}
	owner := map[atom.Place]*cut{}
	for _, p := range w.params {
		for _, pl := range places(p) {
			if owner[pl] == nil {
				owner[pl] = p
				byLayer[pl.Layer] = append(byLayer[pl.Layer], pl)
			}
		}
	}
	for _, layer := range slices.Sorted(maps.Keys(byLayer)) {
		for tp := range w.l.TP {
			r := &rankPlan{writer: w, tp: tp}
			bytes := int64(0)
			for _, pl := range byLayer[layer] {
				_, d := w.weight(owner[pl])
				bytes += owner[pl].numel(tp) * int64(d.Size())
			}
			w.add(layerName(layer, tp), bytes, func(f torchfile.Fills) (torch.Value, error) {
				d := torch.NewOrderedDict()
				for _, pl := range byLayer[layer] {
					t, dt := w.weight(owner[pl])
					d.Set(pl.Key, r.whole(f, owner[pl], t, dt))
				}
				return d, nil
			})
		}
	}
}

// places are where a pipeline module stores a parameter: what the source says,
// else what the name says. A tied module is stored by its first layer.
func places(p *cut) []atom.Place {
	if len(p.Places) > 0 {
		return p.Places
	}
	if l := layerOf(p.Name); l >= 0 {
		return []atom.Place{{Layer: l, Key: strings.TrimPrefix(p.Name, strconv.Itoa(l)+".")}}
	}
	if mod, ok := strings.CutPrefix(p.Name, "tied_modules."); ok {
		if _, key, ok := strings.Cut(mod, "."); ok {
			return []atom.Place{{Layer: 0, Key: key}}
		}
	}
	return nil
}
