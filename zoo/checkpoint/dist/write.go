package dist

import (
	"bytes"
	"fmt"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/formats/dcp"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Options says what is written.
type Options struct {
	// DType casts the weights of the model; tensor.Invalid keeps them.
	DType tensor.DType
	// MaxFile is the size after which a further file is begun; 0 means 4 GiB.
	MaxFile int64
}

// step makes a scalar tensor of a loaded step.
func step(t *tensor.Tensor) *torch.Tensor {
	return torch.NewTensor(t.DType, t.Shape, bytes.NewReader(t.Bytes()))
}

// item is one tensor of the output and where it comes from.
type item struct {
	tensor dcp.Tensor
	span   engine.Span
}

// Plan lists the files: tensors under "model" and "optimizer.state", as
// torch.distributed.checkpoint.state_dict names them.
func Plan(c *atom.Checkpoint, o Options) ([]engine.File, error) {
	if o.MaxFile <= 0 {
		o.MaxFile = 4 << 30
	}
	items, err := o.items(c)
	if err != nil {
		return nil, err
	}
	ck := &dcp.Checkpoint{}
	file, size := 0, int64(0)
	for i := range items {
		t := &items[i].tensor
		n := int64(1)
		for _, d := range t.Shape {
			n *= int64(d)
		}
		n *= int64(t.DType.Size())
		if size > 0 && size+n > o.MaxFile {
			file, size = file+1, 0
		}
		size += n
		t.Chunks = []dcp.Chunk{{Offsets: make([]int, len(t.Shape)), Sizes: t.Shape, Data: weights.Tensor{
			Name: t.Name, DType: t.DType, Shape: t.Shape, File: fmt.Sprintf("__%d_0.distcp", file),
		}}}
		ck.Tensors = append(ck.Tensors, *t)
	}
	if len(c.Groups) > 0 {
		groups := torch.NewList()
		for _, g := range c.Groups {
			groups.Items = append(groups.Items, g)
		}
		ck.Blobs = append(ck.Blobs, dcp.Blob{
			Name: "optimizer.param_groups", Path: []torch.Value{"optimizer", "param_groups"}, Value: groups,
		})
	}
	l, err := dcp.NewPlan(ck)
	if err != nil {
		return nil, err
	}
	var files []engine.File
	for i := range l.Files {
		f := &l.Files[i]
		layout := &engine.Layout{Plan: &f.Plan}
		total := int64(0)
		for _, ref := range f.Chunks {
			it := &items[ref.Tensor]
			layout.Slots = append(layout.Slots, engine.Slot{
				Name: it.tensor.Name, DType: it.tensor.DType, Shape: atom.Dims(it.tensor.Shape), Spans: []engine.Span{it.span},
			})
			total += it.span.Bytes()
		}
		files = append(files, engine.File{Name: f.Name, Bytes: total, Build: func() (*engine.Layout, error) { return layout, nil }})
	}
	return append(files, engine.File{Name: ".metadata", Build: func() (*engine.Layout, error) {
		return engine.Literal(l.Metadata), nil
	}}), nil
}

// items lists all tensors: the model's weights, and the optimizer's states and
// steps by parameter.
func (o Options) items(c *atom.Checkpoint) ([]item, error) {
	var out []item
	for _, p := range c.Params {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			t := p.Weight()
			if t == nil {
				break
			}
			d := t.DType
			if d.IsFloat() && o.DType != tensor.Invalid {
				d = o.DType
			}
			out = append(out, item{
				tensor: dcp.Tensor{Name: "model." + name, DType: d, Shape: atom.Ints(t.Shape), Path: []torch.Value{"model", name}},
				span:   engine.All(t, d),
			})
		}
		prefix := "optimizer.state." + p.Name + "."
		for _, s := range p.States {
			if s.Name == atom.FP32 || s.Name == atom.Module {
				continue
			}
			out = append(out, item{
				tensor: dcp.Tensor{Name: prefix + s.Name, DType: s.DType, Shape: atom.Ints(s.Shape), Path: []torch.Value{"optimizer", "state", p.Name, s.Name}},
				span:   engine.All(s.Tensor, s.DType),
			})
		}
		if p.Step != nil {
			it, err := stepItem(p)
			if err != nil {
				return nil, fmt.Errorf("%s, step: %w", p.Name, err)
			}
			out = append(out, it)
		}
	}
	return out, nil
}

// stepItem is the step as a scalar tensor.
func stepItem(p *atom.Param) (item, error) {
	d, data := tensor.F32, []byte(nil)
	switch x := p.Step.(type) {
	case *torch.Tensor:
		t, err := x.Load()
		if err != nil {
			return item{}, err
		}
		d, data = t.DType, t.Bytes()
	case int64:
		data = tensor.Scalar(float32(x)).Bytes()
	case float64:
		data = tensor.Scalar(float32(x)).Bytes()
	default:
		return item{}, fmt.Errorf("%T is no number", p.Step)
	}
	return item{
		tensor: dcp.Tensor{Name: "optimizer.state." + p.Name + ".step", DType: d, Shape: []int{}, Path: []torch.Value{"optimizer", "state", p.Name, "step"}},
		span:   engine.Span{Literal: data},
	}, nil
}
