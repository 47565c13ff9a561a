package checkpoint

import (
	"fmt"
	"os"
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/nearest"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// IntoONNX puts the weights of a checkpoint into the initializers of the same
// names of an ONNX model, cast to the model's element types, and writes the
// model under another name. Initializers that the checkpoint does not have stay
// as they are; a checkpoint's parameter that the model does not have is an
// error, since its weights would be lost without a word.
func IntoONNX(c *atom.Checkpoint, model, out string, force bool) (*Result, error) {
	m, err := onnxfile.Read(model, onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	byName := map[string]int{}
	var names []string
	for i, v := range m.Graph.Inits {
		byName[v.Name] = i
		names = append(names, v.Name)
	}
	r := engine.NewReader(c)
	defer r.Close()
	res := &Result{Output: out, Format: "onnx", Files: 1, Complete: true, Warnings: c.Warnings}
	for _, p := range c.Params {
		hit := false
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			i, ok := byName[name]
			if !ok {
				continue
			}
			hit = true
			v := m.Graph.Inits[i]
			t, err := weightLike(r, p, v.Const)
			if err != nil {
				return nil, fault.New(fault.BadModel, "initializer %s: %w", name, err).InFile(model)
			}
			v.Const = t
			res.Params++
			res.Bytes += int64(len(t.Bytes()))
		}
		if !hit && p.Kind == atom.Trained {
			err := fault.New(fault.BadModel, "the model has no initializer %s", p.Name).InFile(model)
			if n := nearest.Find(p.Name, names); n != "" {
				return nil, err.Hint("rename it, such as --rename '%s=%s', or leave it out with --exclude", p.Name, n)
			}
			return nil, err.Hint("rename parameters with --rename, or leave them out with --exclude")
		}
	}
	if res.Params == 0 {
		return nil, fault.New(fault.BadModel, "the model has no initializer with the name of a parameter").InFile(model)
	}
	res.Written = res.Bytes
	if _, err := os.Stat(out); err == nil && !force {
		return nil, fault.New(fault.Usage, "output exists already").InFile(out).Hint("give another -o, or --force to replace it")
	}
	return res, m.Write(out, onnxfile.WriteOptions{})
}

// weightLike loads a parameter in the element type of an initializer.
func weightLike(r *engine.Reader, p *atom.Param, like *tensor.Tensor) (*tensor.Tensor, error) {
	w := p.Weight()
	if w == nil {
		return nil, fmt.Errorf("the parameter has no weights")
	}
	if !slices.Equal(atom.Dims(like.Shape), w.Shape) {
		return nil, fmt.Errorf("it has shape %v, the parameter %v", like.Shape, w.Shape)
	}
	b := make([]byte, 0, w.Bytes())
	if err := r.Stream(w, func(x []byte) error { b = append(b, x...); return nil }); err != nil {
		return nil, err
	}
	x := tensor.New(w.DType, atom.Ints(w.Shape)...)
	copy(x.Bytes(), b)
	return tensor.Convert(x, like.DType), nil
}
