package dist

import (
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/dcp"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Open reads a distributed checkpoint folder.
func Open(s weights.Store, dir string) (*atom.Checkpoint, error) {
	c := &atom.Checkpoint{Format: "dcp", Store: s, Folder: dir, Spec: &spec.Spec{}, Topology: atom.Topology{TP: 1, PP: 1, DP: 1}}
	atom.NewBook(c)
	var d *dcp.Checkpoint
	mega, err := weights.Exists(s, weights.Join(dir, dcp.MegatronMetadataName))
	switch {
	case err != nil:
	case mega:
		var m *dcp.Megatron
		if m, err = dcp.OpenMegatron(s, dir); err == nil {
			c.Format, d = "megatron-core", m.Checkpoint
		}
	default:
		d, err = dcp.Open(s, dir)
	}
	if err != nil {
		return nil, fault.New(fault.BadModel, "%w", err).InFile(dir)
	}
	r := &reader{c: c, params: map[string]*atom.Param{}}
	for i := range d.Tensors {
		if err := r.tensor(&d.Tensors[i]); err != nil {
			return nil, err
		}
	}
	for _, b := range d.Blobs {
		r.blob(b)
	}
	c.Params = slices.DeleteFunc(c.Params, func(p *atom.Param) bool { return len(p.States) == 0 })
	if err := c.Check(); err != nil {
		return nil, fault.New(fault.BadModel, "%w", err).InFile(dir)
	}
	return c, nil
}

type reader struct {
	c      *atom.Checkpoint
	params map[string]*atom.Param
}

// wrappers are the keys under which programs nest a model's state dict.
var wrappers = []string{"app", "model", "module", "state_dict", "model_state_dict"}

// optimizers are the keys of optimizer state.
var optimizers = []string{"optimizer", "optim", "optimizer_state_dict", "optimizers"}

// split gives the parameter and the state that a tensor belongs to.
func (r *reader) split(name string, path []torch.Value) (param, state string) {
	// Megatron-Core: optimizer.state.<state>.<parameter>.
	if rest, ok := strings.CutPrefix(name, "optimizer.state."); ok && r.c.Format == "megatron-core" {
		if state, param, ok = strings.Cut(rest, "."); ok {
			if state == "fp32_param" {
				state = atom.FP32
			}
			return param, state
		}
	}
	parts := make([]string, 0, len(path))
	for _, p := range path {
		s, ok := p.(string)
		if !ok {
			return name, atom.Module
		}
		parts = append(parts, s)
	}
	for len(parts) > 1 && slices.Contains(wrappers, parts[0]) {
		parts = parts[1:]
	}
	if len(parts) == 4 && slices.Contains(optimizers, parts[0]) && parts[1] == "state" {
		return parts[2], parts[3]
	}
	if len(parts) == 0 {
		return name, atom.Module
	}
	return strings.Join(parts, "."), atom.Module
}

func (r *reader) param(name string) *atom.Param {
	p := r.params[name]
	if p == nil {
		p = &atom.Param{Name: name, Kind: atom.Trained, Stages: []int{0}, Rule: spec.Match{Kind: spec.Fragment}}
		r.params[name] = p
		r.c.Params = append(r.c.Params, p)
	}
	return p
}

func (r *reader) tensor(t *dcp.Tensor) error {
	if t.Missing > 0 {
		return fault.New(fault.BadModel, "%d of the elements of %s are in no chunk", t.Missing, t.Name).InFile(r.c.Folder)
	}
	name, state := r.split(t.Name, t.Path)
	p := r.param(name)
	shape := atom.Dims(t.Shape)
	x := &atom.Tensor{DType: t.DType, Shape: shape}
	for _, ch := range t.Chunks {
		v := geometry.At(shape, atom.Dims(ch.Offsets), atom.Dims(ch.Sizes))
		pc := atom.Piece{View: v, Frags: []atom.Frag{{Len: geometry.Numel(v.Local), Blob: int32(len(r.c.Blobs))}}}
		n := ch.Data.Bytes()
		if ch.Data.Stride != nil {
			pc.Stride = atom.Dims(ch.Data.Stride)
			if e, err := weights.Extent(ch.Data.Shape, ch.Data.Stride); err == nil {
				n = e * int64(t.DType.Size())
			}
		}
		r.c.Blobs = append(r.c.Blobs, atom.Blob{File: ch.Data.File, Offset: ch.Data.Offset, Bytes: n})
		x.Pieces = append(x.Pieces, pc)
	}
	if state == "step" && len(shape) == 0 && len(t.Chunks) == 1 {
		f, err := r.c.Store.Open(t.Chunks[0].Data.File)
		if err != nil {
			return err
		}
		defer f.Close()
		v, err := t.Chunks[0].Data.Load(f)
		if err != nil {
			return err
		}
		p.Step = step(v)
		return nil
	}
	if p.Shape == nil || state == atom.Module {
		p.Shape = shape
	}
	p.SetState(state, x)
	if state == atom.Module && r.c.ModuleType == tensor.Invalid {
		r.c.ModuleType = t.DType
	}
	return nil
}

// blob takes steps and hyper-parameters that are no tensors.
func (r *reader) blob(b dcp.Blob) {
	name, state := r.split(b.Name, b.Path)
	if state == "step" {
		switch b.Value.(type) {
		case int64, float64:
			r.param(name).Step = b.Value
			return
		}
	}
	if len(b.Path) >= 2 && b.Path[len(b.Path)-1] == "param_groups" {
		if l, ok := b.Value.(*torch.List); ok {
			for _, g := range l.Items {
				if d, ok := g.(*torch.Dict); ok {
					r.c.Groups = append(r.c.Groups, d)
				}
			}
		}
	}
}
