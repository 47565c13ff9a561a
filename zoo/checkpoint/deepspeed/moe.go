package deepspeed

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// expertPart is how DeepSpeed's MoE names the list of experts of a layer. Model
// files use the global number of an expert, optimizer files the number within
// its expert-parallel rank.
const expertPart = ".deepspeed_moe.experts.deepspeed_experts."

var reExpertName = regexp.MustCompile(`^(.*\.deepspeed_experts\.)(\d+)(\..*)$`)

// expertGroup enters a group of expert parameters: each expert-parallel rank
// holds other experts, cut over the data-parallel ranks that share them.
func (r *reader) expertGroup(rk *rank, g int, parts []*part, count int) error {
	dp := r.c.Topology.DP
	if count <= 0 || dp%count != 0 {
		return fmt.Errorf("group %d is cut into %d partitions, which do not divide %d data-parallel ranks", g, count, dp)
	}
	ep := dp / count
	r.c.Topology.EP = max(r.c.Topology.EP, ep)
	locals := map[string]int{} // per prefix the number of local experts
	for _, p := range parts {
		if g >= len(p.mapping) {
			return fmt.Errorf("expert group %d has no param_slice_mappings", g)
		}
		for _, kv := range p.mapping[g].Pairs() {
			name, _ := kv.Key.(string)
			m := reExpertName.FindStringSubmatch(name)
			if m == nil {
				return fmt.Errorf("group %d is cut over %d of %d ranks, but %s is no expert", g, count, dp, name)
			}
			id, _ := strconv.Atoi(m[2])
			locals[m[1]] = max(locals[m[1]], id+1)
		}
	}
	for e := range ep {
		var own []*part
		for _, p := range parts {
			if p.dp%ep == e {
				own = append(own, p)
			}
		}
		rename := func(name string) string {
			m := reExpertName.FindStringSubmatch(name)
			id, _ := strconv.Atoi(m[2])
			return m[1] + strconv.Itoa(e*locals[m[1]]+id) + m[3]
		}
		if err := r.flatGroup(rk, g, own, count, rename); err != nil {
			return err
		}
	}
	return nil
}

// localFor finds or makes the local parameter of a fragment. Where the files do
// not say its shape, the model's tensors and the expert files do.
func (r *reader) localFor(rk *rank, name string, lay *groupLayout, recorded string, g int) (*local, error) {
	if l := rk.params[name]; l != nil {
		return l, nil
	}
	shape, ok := lay.shapes[recorded]
	if !ok {
		var err error
		if shape, err = r.shapeOf(rk, name); err != nil {
			return nil, err
		}
	}
	return rk.add(name, shape, g)
}

// shapeOf finds the shape of a parameter that param_shapes does not list.
func (r *reader) shapeOf(rk *rank, name string) ([]int64, error) {
	for _, m := range r.c.Models {
		if m.PP != rk.pp || m.TP != rk.tp || m.Root == nil {
			continue
		}
		if v, ok := sub(m.Root, "module").Get(name); ok {
			if t, ok := v.(*torch.Tensor); ok {
				return atom.Dims(t.Shape), nil
			}
		}
	}
	for _, f := range r.files.expert {
		if f.mp != rk.mp || !strings.Contains(name, expertPart+strconv.Itoa(f.b)+".") {
			continue
		}
		d, err := r.expertFile(f.name)
		if err != nil {
			return nil, err
		}
		if v, ok := d.Get(name); ok {
			if t, ok := v.(*torch.Tensor); ok {
				return atom.Dims(t.Shape), nil
			}
		}
	}
	return nil, fmt.Errorf("the shape of %s is not recorded", name)
}

// expertFile opens an expert file once.
func (r *reader) expertFile(name string) (*torch.Dict, error) {
	if d := r.expertFiles[name]; d != nil {
		return d, nil
	}
	d, err := r.openDict(name)
	if err != nil {
		return nil, err
	}
	if r.expertFiles == nil {
		r.expertFiles = map[string]*torch.Dict{}
	}
	r.expertFiles[name] = d
	return d, nil
}

// experts enters the model weights of experts.
func (r *reader) experts() error {
	for _, f := range r.files.expert {
		if f.mp >= len(r.ranks) {
			return bad(r.file(f.name), "model-parallel rank %d does not exist", f.mp)
		}
		d, err := r.expertFile(f.name)
		if err != nil {
			return err
		}
		for _, kv := range d.Pairs() {
			name, _ := kv.Key.(string)
			t, ok := kv.Value.(*torch.Tensor)
			if !ok {
				continue
			}
			if err := r.moduleTensor(r.ranks[f.mp], name, t); err != nil {
				return bad(r.file(f.name), "%w", err)
			}
		}
	}
	if n := items(r.firstModel(), "num_experts"); len(n) > 0 && len(r.files.expert) == 0 {
		return bad(r.c.Folder, "the model has experts, but there are no layer_*_expert_* files")
	}
	for _, rk := range r.ranks {
		for _, name := range rk.order {
			l := rk.params[name]
			if isExpert(name) {
				l.expert = true
			}
			slices.SortStableFunc(l.places, func(a, b atom.Place) int { return a.Layer - b.Layer })
		}
	}
	return nil
}

// numel is the size of a local parameter.
func (l *local) numel() int64 { return geometry.Numel(l.shape) }
