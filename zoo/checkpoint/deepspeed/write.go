package deepspeed

import (
	"path"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Plan lists the files of a native checkpoint in a layout.
func Plan(c *atom.Checkpoint, l Layout) ([]engine.File, error) {
	t, err := newTarget(c, l)
	if err != nil {
		return nil, err
	}
	tag := l.Tag
	if tag == "" {
		tag = strings.TrimSuffix(c.Tag(), "_universal")
	}
	if tag == "" {
		tag = "checkpoint"
	}
	if strings.ContainsAny(tag, "/\\") {
		return nil, fault.New(fault.Usage, "tag %q is no folder name", tag)
	}
	w := &writer{target: t, tag: tag}
	w.literal("latest", []byte(tag))
	for pp := range t.l.PP {
		for tp := range t.l.TP {
			w.rank(pp, tp)
		}
	}
	if t.pipe {
		w.layers()
	}
	return w.files, nil
}

// writer gathers the files of a target.
type writer struct {
	*target
	tag   string
	files []engine.File
}

func (w *writer) literal(name string, data []byte) {
	w.files = append(w.files, engine.File{Name: name, Build: func() (*engine.Layout, error) { return engine.Literal(data), nil }})
}

// add plans a torch file of the tag folder.
func (w *writer) add(name string, bytes int64, root func(f torchfile.Fills) (torch.Value, error)) {
	w.files = append(w.files, engine.File{
		Name: path.Join(w.tag, name), Bytes: bytes,
		Build: func() (*engine.Layout, error) {
			f := torchfile.Fills{}
			v, err := root(f)
			if err != nil {
				return nil, err
			}
			return torchfile.Layout(w.c, v, strings.TrimSuffix(name, ".pt"), f)
		},
	})
}

// rank plans the files of one model-parallel rank.
func (w *writer) rank(pp, tp int) {
	mp := pp*w.l.TP + tp
	r := &rankPlan{writer: w, pp: pp, tp: tp}
	r.collect()
	if w.l.Zero == 3 {
		for d := range w.l.DP {
			w.add(model3Name(d, mp), r.model3Bytes(d), func(f torchfile.Fills) (torch.Value, error) { return r.model3(f, d) })
		}
	} else {
		w.add(modelName(mp), r.modelBytes(), r.model)
		r.expertFiles(mp)
	}
	for d := range w.l.DP {
		if w.l.Zero == 3 {
			w.add(optimName(w.bf16, d, mp), r.optim3Bytes(), func(f torchfile.Fills) (torch.Value, error) { return r.optim3(f, d) })
		} else {
			w.add(optimName(w.bf16, d, mp), r.optim12Bytes(d), func(f torchfile.Fills) (torch.Value, error) { return r.optim12(f, d) })
		}
	}
}

// rankPlan is one model-parallel rank of the target.
type rankPlan struct {
	*writer
	pp, tp int
	groups [][]*cut // trained, by optimizer group, in the order of the data
	others []*cut   // buffers and frozen parameters
	subs   [][]*cut // ZeRO-3 sub-groups
	subOf  []int    // the group of each sub-group
}

func (r *rankPlan) collect() {
	r.groups = make([][]*cut, max(r.target.groups, 1))
	for _, p := range r.params {
		switch {
		case !p.on(r.pp):
		case p.Kind == atom.Trained:
			g := max(p.Group, 0)
			r.groups[g] = append(r.groups[g], p)
		default:
			r.others = append(r.others, p)
		}
	}
	if r.l.Zero == 3 {
		r.subgroups()
	}
}

// span is a run of the shard of this rank.
func (r *rankPlan) span(p *cut, t *atom.Tensor, start, n int64, d tensor.DType) engine.Span {
	return engine.Span{Tensor: t, View: &p.views[r.tp], Start: start, Len: n, DType: d}
}

// whole is the whole shard of this rank as a tensor.
func (r *rankPlan) whole(f torchfile.Fills, p *cut, t *atom.Tensor, d tensor.DType) *torch.Tensor {
	return f.Tensor(d, p.views[r.tp].Local, r.span(p, t, 0, p.numel(r.tp), d))
}

// master is the tensor of the master weights of a parameter.
func master(p *cut) *atom.Tensor {
	if t := p.State(atom.FP32); t != nil {
		return t
	}
	return p.State(atom.Module)
}

// masterType is the element type of a group's master weights.
func masterType(ps []*cut) tensor.DType {
	for _, p := range ps {
		if t := p.State(atom.FP32); t != nil {
			return t.DType
		}
	}
	return tensor.F32
}

// stateType is the element type of a state in a group; false if no parameter
// of the group has it.
func stateType(ps []*cut, state string) (tensor.DType, bool) {
	for _, p := range ps {
		if t := p.State(state); t != nil {
			return t.DType, true
		}
	}
	return tensor.Invalid, false
}

// weight is what the model file holds: its own weights if the source has them,
// else the master weights in the model's element type.
func (t *target) weight(p *cut) (*atom.Tensor, tensor.DType) {
	if m := p.State(atom.Module); m != nil {
		return m, m.DType
	}
	return p.State(atom.FP32), t.module
}

// step is the step of a group: all its parameters must agree, since a flat
// group has one.
func step(ps []*cut) (torch.Value, error) {
	var first *cut
	for _, p := range ps {
		if p.Step == nil {
			continue
		}
		if first == nil {
			first = p
		} else if !SameScalar(first.Step, p.Step) {
			return nil, unsupported("parameters %s and %s of one optimizer group have different steps, which a flat group cannot hold", first.Name, p.Name)
		}
	}
	if first == nil {
		return nil, nil
	}
	return first.Step, nil
}
