package weightfile

import (
	"path"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Options says what is written.
type Options struct {
	// DType casts all floating-point weights; tensor.Invalid gives master
	// weights as they are, buffers as f32, frozen parameters as they are: what
	// DeepSpeed's zero_to_fp32 gives.
	DType tensor.DType
	// Safetensors chooses .safetensors instead of torch's files.
	Safetensors bool
	// MaxShard is the largest file in bytes; 0 means one file.
	MaxShard int64
	// File is the name of the only file; empty for Hugging Face's names.
	File string
	// DropTied leaves out the further names of tied weights.
	DropTied bool
}

// weight is a tensor to be written.
type weight struct {
	name  string
	t     *atom.Tensor
	dtype tensor.DType
	alias string // the name of the tensor that it is tied to
}

// weightsOf lists what is written: buffers, frozen and trained parameters, then
// the further names of tied ones.
func weightsOf(c *atom.Checkpoint, o Options) ([]weight, error) {
	var out, tied []weight
	for _, kind := range []atom.Kind{atom.Buffer, atom.Frozen, atom.Trained} {
		for _, p := range c.Params {
			if p.Kind != kind {
				continue
			}
			t := p.Weight()
			if t == nil {
				return nil, fault.New(fault.BadModel, "parameter %s has no weights", p.Name)
			}
			d := t.DType
			switch {
			case !d.IsFloat():
			case o.DType != tensor.Invalid:
				d = o.DType
			case kind == atom.Buffer:
				d = tensor.F32
			}
			w := weight{name: p.Name, t: t, dtype: d}
			out = append(out, w)
			if o.DropTied {
				continue
			}
			for _, a := range p.Aliases {
				w.name, w.alias = a, p.Name
				tied = append(tied, w)
			}
		}
	}
	return append(out, tied...), nil
}

// Plan lists the files.
func Plan(c *atom.Checkpoint, o Options) ([]engine.File, error) {
	ws, err := weightsOf(c, o)
	if err != nil {
		return nil, err
	}
	if len(ws) == 0 {
		return nil, fault.New(fault.BadModel, "there are no weights to write")
	}
	base, ext := "pytorch_model", "bin"
	if o.Safetensors {
		base, ext = "model", "safetensors"
	}
	if o.MaxShard <= 0 {
		name := o.File
		if name == "" {
			name = base + "." + ext
		}
		return []engine.File{o.file(c, name, ws)}, nil
	}
	return o.shards(c, ws, base, ext)
}

func (o Options) shards(c *atom.Checkpoint, ws []weight, base, ext string) ([]engine.File, error) {
	list := make([]weights.Tensor, len(ws))
	byName := map[string]weight{}
	for i, w := range ws {
		w.alias = "" // a tied tensor may lie in another file
		list[i] = w.describe()
		byName[w.name] = w
	}
	shards, index, err := safetensors.Split(list, o.MaxShard, base, ext)
	if err != nil {
		return nil, err
	}
	var files []engine.File
	for _, s := range shards {
		part := make([]weight, len(s.Tensors))
		for i, t := range s.Tensors {
			part[i] = byName[t.Name]
		}
		files = append(files, o.file(c, s.File, part))
	}
	if index == nil {
		return files, nil
	}
	data, err := index.Marshal()
	if err != nil {
		return nil, err
	}
	return append(files, engine.File{
		Name:  base + "." + ext + ".index.json",
		Build: func() (*engine.Layout, error) { return engine.Literal(data), nil },
	}), nil
}

func (w weight) describe() weights.Tensor {
	return weights.Tensor{Name: w.name, DType: w.dtype, Shape: atom.Ints(w.t.Shape)}
}

func (w weight) bytes() int64 { return w.t.Numel() * int64(w.dtype.Size()) }

func (o Options) file(c *atom.Checkpoint, name string, ws []weight) engine.File {
	f := engine.File{Name: name}
	for _, w := range ws {
		if w.alias == "" || o.Safetensors {
			f.Bytes += w.bytes()
		}
	}
	if o.Safetensors {
		f.Build = func() (*engine.Layout, error) { return safetensorsLayout(ws) }
	} else {
		f.Build = func() (*engine.Layout, error) { return torchLayout(c, name, ws) }
	}
	return f
}

func safetensorsLayout(ws []weight) (*engine.Layout, error) {
	list := make([]weights.Tensor, len(ws))
	for i, w := range ws {
		list[i] = w.describe()
	}
	p, err := safetensors.NewPlan(list, map[string]string{"format": "pt"})
	if err != nil {
		return nil, err
	}
	l := &engine.Layout{Plan: p}
	for _, w := range ws {
		l.Slots = append(l.Slots, w.slot())
	}
	return l, nil
}

func (w weight) slot() engine.Slot {
	return engine.Slot{Name: w.name, DType: w.dtype, Shape: w.t.Shape, Spans: []engine.Span{engine.All(w.t, w.dtype)}}
}

func torchLayout(c *atom.Checkpoint, name string, ws []weight) (*engine.Layout, error) {
	f := torchfile.Fills{}
	root := torch.NewOrderedDict()
	made := map[string]*torch.Tensor{}
	for _, w := range ws {
		if m := made[w.alias]; w.alias != "" && m != nil {
			root.Set(w.name, torch.ViewOf(m.Storage, m.Shape, 0))
			continue
		}
		made[w.name] = f.Whole(w.t, w.dtype)
		root.Set(w.name, made[w.name])
	}
	base := path.Base(name)
	return torchfile.Layout(c, root, strings.TrimSuffix(base, path.Ext(base)), f)
}
