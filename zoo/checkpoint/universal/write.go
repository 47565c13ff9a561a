package universal

import (
	"path"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Dialect is one of the two forms of state files.
type Dialect string

// The dialects.
const (
	Auto Dialect = "auto" // as DeepSpeed's converter: flat for ZeRO-3 without tensor parallelism
	Dict Dialect = "dict"
	Flat Dialect = "flat"
)

// Options says what is written.
type Options struct {
	Dialect Dialect
	// DType casts the states; tensor.Invalid keeps their element types.
	DType tensor.DType
	// Folder is the universal folder's name; empty for the source's tag and
	// "_universal".
	Folder string
}

// Extra is the file of what the copied model-states files do not tell: buffers
// and frozen parameters of pipeline modules, which keep them in layer files,
// and the optimizer groups of experts. DeepSpeed does not read it; lathe does.
const Extra = "lathe_buffers.pt"

// Stub marks a model-states file that lathe wrote for names and shapes only.
const Stub = "lathe_stub"

// Plan lists the files of a universal checkpoint.
func Plan(c *atom.Checkpoint, o Options) ([]engine.File, error) {
	if o.Folder == "" {
		tag := c.Tag()
		if tag == "" {
			tag = "checkpoint"
		}
		o.Folder = strings.TrimSuffix(tag, "_universal") + "_universal"
	}
	if o.Dialect == Auto || o.Dialect == "" {
		o.Dialect = Dict
		if c.Topology.Zero == 3 && c.Topology.TP == 1 {
			o.Dialect = Flat
		}
	}
	files := []engine.File{literal("latest_universal", []byte(o.Folder))}
	var extra []*atom.Param
	for _, p := range c.Params {
		if err := checkName(p.Name); err != nil {
			return nil, err
		}
		states := trainedStates(p)
		if len(states) == 0 {
			if len(p.Places) > 0 || len(c.Models) == 0 || c.Edited {
				extra = append(extra, p)
			}
			continue
		}
		dir := path.Join(o.Folder, "zero", p.Name)
		for _, s := range states {
			files = append(files, stateFile(c, p, s, dir, o))
		}
		if p.Step != nil && o.Dialect == Dict {
			files = append(files, torchFile(c, path.Join(dir, "step.pt"), 4, func(torchfile.Fills) (torch.Value, error) {
				return p.Step, nil
			}))
		}
	}
	files = append(files, torchFile(c, path.Join(o.Folder, "zero", "optimizer_state.pt"), 0, func(torchfile.Fills) (torch.Value, error) {
		return optimizerState(c, o.Dialect), nil
	}))
	if len(extra) > 0 || !listsShapes(c) {
		files = append(files, extraFile(c, extra, path.Join(o.Folder, Extra)))
	}
	models, err := modelFiles(c, o.Folder)
	return append(files, models...), err
}

// checkName refuses names that cannot be one folder.
func checkName(name string) error {
	if name == "." || name == ".." || strings.ContainsAny(name, "/\\") || weights.CheckName(name) != nil {
		return fault.New(fault.BadModel, "parameter name %q cannot be a folder name", name)
	}
	return nil
}

// trainedStates are the states of a parameter that the optimizer has, or the
// model's weights as master weights where there is no optimizer.
func trainedStates(p *atom.Param) []atom.State {
	var out []atom.State
	for _, s := range p.States {
		if s.Name != atom.Module {
			out = append(out, s)
		}
	}
	if m := p.State(atom.Module); p.Kind == atom.Trained && p.State(atom.FP32) == nil && m != nil {
		out = append([]atom.State{{Name: atom.FP32, Tensor: m}}, out...)
	}
	return out
}

func literal(name string, data []byte) engine.File {
	return engine.File{Name: name, Bytes: 0, Build: func() (*engine.Layout, error) { return engine.Literal(data), nil }}
}

func torchFile(c *atom.Checkpoint, name string, bytes int64, root func(torchfile.Fills) (torch.Value, error)) engine.File {
	prefix := strings.TrimSuffix(path.Base(name), ".pt")
	return engine.File{Name: name, Bytes: bytes, Build: func() (*engine.Layout, error) {
		f := torchfile.Fills{}
		v, err := root(f)
		if err != nil {
			return nil, err
		}
		return torchfile.Layout(c, v, prefix, f)
	}}
}

func stateFile(c *atom.Checkpoint, p *atom.Param, s atom.State, dir string, o Options) engine.File {
	d := s.DType
	if s.Name == atom.FP32 && p.State(atom.FP32) == nil && d.IsFloat() {
		d = tensor.F32
	}
	if o.DType != tensor.Invalid && d.IsFloat() {
		d = o.DType
	}
	bytes := s.Numel() * int64(d.Size())
	return torchFile(c, path.Join(dir, s.Name+".pt"), bytes, func(f torchfile.Fills) (torch.Value, error) {
		if o.Dialect == Flat {
			return f.Tensor(d, []int64{s.Numel()}, engine.All(s.Tensor, d)), nil
		}
		root := metadata(p)
		root.Set("param", f.Whole(s.Tensor, d))
		return root, nil
	})
}

// metadata is what the loader needs to cut the parameter again, in the order in
// which DeepSpeed writes it.
func metadata(p *atom.Param) *torch.Dict {
	d, m := torch.NewDict(), p.Rule
	switch {
	case m.Kind == spec.Replicated || m.Kind == spec.Average:
	case m.Sub != nil:
		d.Set("sub_param_shape", m.Sub.Closed(p.Shape).Value())
	case m.Count > 1:
		d.Set("cat_dim", int64(m.Dim))
		d.Set("param_n_sub_params", int64(m.Count))
	default:
		d.Set("cat_dim", int64(m.Dim))
	}
	if m.Vocabulary {
		d.Set("vocab_tensor", true)
	}
	return d
}

// optimizerState is zero/optimizer_state.pt: the global state of the optimizer
// and the hyper-parameters of its groups, without the sharded tensors.
func optimizerState(c *atom.Checkpoint, dialect Dialect) *torch.Dict {
	d := torch.NewDict()
	if c.Optim != nil {
		d = c.Optim.Copy()
	}
	groups := torch.NewList()
	for _, g := range c.Groups {
		groups.Items = append(groups.Items, g)
	}
	d.Set("param_groups", groups)
	if _, ok := d.Get("optimizer_state_dict"); dialect == Flat && !ok {
		// ZeRO-3's loader looks for the step and the hyper-parameters in here.
		states := torch.NewDict()
		for g := range c.Groups {
			st := torch.NewDict()
			for _, p := range c.Params {
				if p.Group == g && p.Step != nil {
					st.Set("step", p.Step)
					break
				}
			}
			states.Set(int64(g), st)
		}
		d.Set("optimizer_state_dict", torch.NewDict("state", states, "param_groups", groups))
	}
	return d
}

// extraFile holds buffers and frozen parameters by name.
func extraFile(c *atom.Checkpoint, extra []*atom.Param, name string) engine.File {
	bytes := int64(0)
	for _, p := range extra {
		bytes += p.States[0].Bytes()
	}
	return torchFile(c, name, bytes, func(f torchfile.Fills) (torch.Value, error) {
		tensors, kinds, places := torch.NewOrderedDict(), torch.NewDict(), torch.NewDict()
		for _, p := range extra {
			tensors.Set(p.Name, f.Whole(p.States[0].Tensor, p.States[0].DType))
			kinds.Set(p.Name, p.Kind.String())
			l := torch.NewList()
			for _, pl := range p.Places {
				l.Items = append(l.Items, torch.NewTuple(int64(pl.Layer), pl.Key))
			}
			places.Set(p.Name, l)
		}
		groups := torch.NewOrderedDict()
		for _, p := range c.Params {
			if p.Kind == atom.Trained {
				groups.Set(p.Name, int64(p.Group))
			}
		}
		return torch.NewDict("tensors", tensors, "kinds", kinds, "places", places, "groups", groups), nil
	})
}

// listsShapes tells whether the model-states files list the parameters of each
// optimizer group; those of DeepSpeed's mixture of experts do not.
func listsShapes(c *atom.Checkpoint) bool {
	if len(c.Models) == 0 || c.Edited {
		return true // lathe writes a file that does
	}
	v, _ := c.Models[0].Root.Get("param_shapes")
	return v != nil
}

// modelFiles copies the model-states files byte for byte; a source without any
// gets one that says what the names and shapes are.
func modelFiles(c *atom.Checkpoint, folder string) ([]engine.File, error) {
	var files []engine.File
	for _, m := range c.Models {
		if c.Edited {
			break
		}
		blob, err := c.Book.File(path.Join(c.Folder, m.File))
		if err != nil {
			return nil, err
		}
		files = append(files, engine.File{
			Name: path.Join(folder, m.File), Bytes: c.Blobs[blob].Bytes, Build: torchfile.Copy(c, blob),
		})
	}
	if len(files) > 0 {
		return files, nil
	}
	return []engine.File{torchFile(c, path.Join(folder, "mp_rank_00_model_states.pt"), 0, func(torchfile.Fills) (torch.Value, error) {
		return stub(c), nil
	})}, nil
}

// stub is a model-states file for a source that has none.
func stub(c *atom.Checkpoint) *torch.Dict {
	groups := map[int]*torch.Dict{}
	n := 0
	for _, p := range c.Params {
		if p.Kind != atom.Trained {
			continue
		}
		g := max(p.Group, 0)
		if groups[g] == nil {
			groups[g] = torch.NewOrderedDict()
			n = max(n, g+1)
		}
		groups[g].Set(p.Name, torch.Size(atom.Ints(p.Shape)))
	}
	shapes := torch.NewList()
	for g := range n {
		if groups[g] == nil {
			groups[g] = torch.NewOrderedDict()
		}
		shapes.Items = append(shapes.Items, groups[g])
	}
	info := torch.NewDict("universal_checkpoint_version", 0.2)
	if c.Spec != nil {
		info = c.Spec.ToInfo()
	}
	d := torch.NewDict()
	if len(c.Models) > 0 && c.Models[0].Root != nil {
		d = c.Models[0].Root.Copy() // client state
	}
	for _, k := range []string{"buffer_names", "frozen_param_shapes", "frozen_param_fragments", "shared_params"} {
		d.Delete(k)
	}
	d.Set("module", nil)
	d.Set("param_shapes", shapes)
	d.Set("universal_checkpoint_info", info)
	d.Set("dp_world_size", int64(1))
	d.Set("mp_world_size", int64(1))
	d.Set(Stub, true)
	return d
}
