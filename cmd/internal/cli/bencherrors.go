package cli

import (
	"context"
	"strconv"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
)

// errorsOf measures a model's layers and outputs against float64.
func (o *benchOptions) errorsOf(ctx context.Context, e engine, path string) (*errorReport, error) {
	make := compiledBackends[e.name]
	if make == nil || isArtifact(path) {
		return nil, fault.New(fault.Usage, "--errors needs a model that is compiled here").InFile(path).Hint("use a model with --backend cpu, portable or interp")
	}
	m, x, in, set, err := o.expanded(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	meter, err := newErrorMeter(o.factory, make(), x.Graph, [][]*tensor.Tensor{in}, o.engine)
	if err != nil {
		return nil, err
	}
	defer func() { meter.close() }()
	opt, err := o.engine.lowering(o.factory, meter.t, o.engine.threads)
	if err != nil {
		return nil, err
	}
	r, err := meter.measure(ctx, 0, opt)
	if err != nil {
		return nil, inModel(err, m)
	}
	if o.peer != "" {
		err = o.peerErrors(ctx, m, set, meter, r)
	}
	return r, err
}

// peerErrors adds how far ONNX Runtime's outputs are from float64.
func (o *benchOptions) peerErrors(ctx context.Context, m *onnxfile.Model, set *conformance.Set, meter *errorMeter, r *errorReport) error {
	s, err := preparePeer(ctx, o.factory, o.engine, m, set)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return err
	}
	out, err := s.outputs()
	if err != nil {
		return err
	}
	for i := range r.Outputs {
		for k, v := range m.Graph.Outputs {
			if d := out[k].Unwrap(); v.Name == r.Outputs[i].Output && d != nil && d.Tensor != nil {
				if want := meter.output(0, v.Name); want.Len() == d.Tensor.Len() {
					dev := wide.Of(d.Tensor, want)
					r.Outputs[i].Peer = &dev
				}
			}
		}
	}
	return nil
}

func errorText(v float64) string { return strconv.FormatFloat(v, 'e', 1, 64) }

// print writes the outputs and then the layers.
func (r *errorReport) print(f *factory, name string) {
	f.Infof("%s against float64, as the root of the mean square over that of the values; bounds are about a layer's own error", name)
	t := f.Table("output", ">error", ">largest", ">peer")
	for _, x := range r.Outputs {
		peer := ""
		if x.Peer != nil {
			peer = errorText(x.Peer.RMS)
		}
		t.Row(x.Output, errorText(x.Error.RMS), errorText(x.Error.Max), peer)
	}
	t.Print()
	t = f.Table("layer", "op", "form", "precision", ">bound", ">own error", ">largest", ">condition", ">so far", "node", "note")
	over := 0
	for _, x := range r.Layers {
		note, condition := "", ""
		if x.Condition > 0 {
			condition = strconv.FormatFloat(x.Condition, 'g', 3, 64)
		}
		if !x.within() {
			over++
			note = "over the bound"
		}
		if x.Steps {
			note = "rounds to whole numbers: no bound"
		}
		if x.Own.Broken > 0 {
			note = plural(x.Own.Broken, "value") + " finite on one side only"
		}
		t.Row(x.Layer, x.Op, x.Form, x.Precision, errorText(x.Bound), errorText(x.Own.RMS), errorText(x.Own.Max), condition, errorText(x.Sofar.RMS), x.Node, note)
	}
	t.Print()
	if over > 0 {
		f.Infof("%s of %d over the bound", plural(over, "layer"), len(r.Layers))
	}
}
