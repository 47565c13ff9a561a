package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// layerFault is a layer whose value is not that of the reference.
type layerFault struct {
	Layer   int      `json:"layer"`
	Op      string   `json:"op"`
	Node    string   `json:"node"`
	Value   string   `json:"value"`
	Kernels []string `json:"kernels"`
	Error   string   `json:"error"`
}

// bisection is the report of --bisect.
type bisection struct {
	Backend  string `json:"backend"`
	Against  string `json:"against"`
	Layers   int    `json:"layers"`
	Compared int    `json:"compared"`
	// Differs is the first layer whose value differs from the reference's.
	Differs *layerFault `json:"differs,omitempty"`
	// Wrong is the first layer that is not what the evaluator makes of the
	// inputs that the layer itself had.
	Wrong *layerFault `json:"wrong,omitempty"`
	// Outputs says how the model's outputs differ from those of the reference.
	Outputs string `json:"outputs,omitempty"`
}

// watched is a program that ran with the values of its layers as outputs.
type watched struct {
	*lower.Watched
	in  []*tensor.Tensor
	got []*tensor.Tensor
}

// bisect looks for the first layer that goes wrong. The kernels are those of a
// usual build: nothing is taken apart to look at it, so that a fault of fusion,
// of layouts or of one form of a kernel is still there.
func (o *verifyOptions) bisect(ctx context.Context, e engine, m *onnxfile.Model) error {
	if compiledBackends[e.name] == nil {
		return fault.New(fault.Usage, "--bisect cannot look into %s, which has no kernels", e.name).Hint("use a model with --backend interp, portable or cpu")
	}
	ref, err := findEngine(o.against)
	switch {
	case err != nil:
		return err
	case ref.name == "peer":
		return fault.New(fault.Usage, "--bisect cannot look into peer").Hint("use --against eval, core, interp, portable or cpu")
	case ref.name == e.name:
		return fault.New(fault.Usage, "%s cannot be verified against itself", e.name).Hint("give another --backend or --against")
	}
	if o.testdata != "" {
		o.inputs.files = []string{o.testdata}
	}
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return err
	}
	w, err := o.watch(ctx, e, o.engine, m, set)
	if err != nil {
		return inModel(err, m)
	}
	want, outputs, err := o.wanted(ctx, ref, m, set, w)
	if err != nil {
		return inModel(err, m)
	}
	tol := o.tol
	if tol.RTol == conformance.Standard.RTol && tol.ATol == conformance.Standard.ATol {
		tol.Lenient = true // sums that cancel are compared by the tensor's magnitude
	}
	r, err := w.find(want, tol)
	if err != nil {
		return err
	}
	r.Backend, r.Against = e.name, ref.name
	if err := conformance.Compare(wrap(w.got[:len(outputs)]), outputs, tol, conformance.Quantizes(m.Graph)); err != nil {
		r.Outputs = strings.Replace(err.Error(), "recorded is", "not", 1)
	}
	return o.reportBisection(r)
}

// watch compiles a model with the values of its layers as outputs and runs it.
func (o *verifyOptions) watch(ctx context.Context, e engine, opt engineOptions, m *onnxfile.Model, set *conformance.Set) (*watched, error) {
	b := compiledBackends[e.name]()
	x, in, _, err := conformance.Ready(m, set)
	if err != nil {
		return nil, err
	}
	t, err := b.Target(opt.codegenFlags.cpu)
	if err != nil {
		return nil, err
	}
	c, err := opt.lowering(o.factory, t, opt.threads)
	if err != nil {
		return nil, err
	}
	w, err := compiler.Watch(x.Graph, t, c)
	if err != nil {
		return nil, err
	}
	ses, done, err := openProgram(ctx, o.factory, b, w.Program, t, opt)
	if err != nil {
		return nil, err
	}
	q := compiledSession(ses, in, done)
	defer q.close()
	if err := q.run(ctx); err != nil {
		return nil, err
	}
	got, err := q.outputs()
	if err != nil {
		return nil, err
	}
	r := &watched{Watched: w, in: in}
	for _, d := range got {
		r.got = append(r.got, d.Tensor)
	}
	return r, nil
}

// wanted gives the reference's value of each stored value that it has, by name,
// and the model's outputs. The evaluator computes the values of the graph that
// the kernels were made of, and the outputs of the model as it is.
func (o *verifyOptions) wanted(ctx context.Context, ref engine, m *onnxfile.Model, set *conformance.Set, w *watched) (map[string]*tensor.Tensor, []*ir.Data, error) {
	want := map[string]*tensor.Tensor{}
	if compiledBackends[ref.name] != nil {
		other, err := o.watch(ctx, ref, engineOptions{threads: o.engine.threads}, m, set)
		if err != nil {
			return nil, nil, err
		}
		for v, i := range other.Output {
			want[v.Name] = other.got[i]
		}
		return want, wrap(other.got[:len(other.Graph.Outputs)]), nil
	}
	out, err := ref.runner(o.factory, engineOptions{})(ctx, m, set)
	if err != nil {
		return nil, nil, err
	}
	g := *w.Graph
	g.Outputs = nil
	for _, l := range w.Layers {
		g.Outputs = append(g.Outputs, l.Root)
	}
	values, err := core.EvalGraph(&g, w.in)
	if err != nil {
		return nil, nil, err
	}
	for i, l := range w.Layers {
		want[l.Root.Name] = values[i]
	}
	return want, out.Data, nil
}

// find compares layer by layer. Whose value differs may have got it from
// layers before, each a little off: where one does, the first layer that is
// wrong by itself is looked for too.
func (w *watched) find(want map[string]*tensor.Tensor, tol conformance.Tolerance) (*bisection, error) {
	r := &bisection{Layers: len(w.Layers)}
	for i, l := range w.Layers {
		x := want[l.Root.Name]
		if x == nil {
			continue
		}
		r.Compared++
		if err := same(w.got[w.Output[l.Root]], x, tol); err != nil && r.Differs == nil {
			r.Differs = w.fault(i, err)
		}
	}
	if r.Differs == nil {
		return r, nil
	}
	for i, l := range w.Layers {
		x, err := w.again(l)
		if err != nil {
			return nil, err
		}
		if err := same(w.got[w.Output[l.Root]], x, tol); err != nil {
			r.Wrong = w.fault(i, err)
			break
		}
	}
	return r, nil
}

// outcome words a difference for one value of which nothing was recorded.
func outcome(err error) string {
	return strings.Replace(strings.TrimPrefix(err.Error(), "output 0: "), "recorded is", "not", 1)
}

func same(got, want *tensor.Tensor, tol conformance.Tolerance) error {
	return conformance.Compare(wrap([]*tensor.Tensor{got}), wrap([]*tensor.Tensor{want}), tol, false)
}

// again evaluates a layer from the inputs that its kernels had.
func (w *watched) again(l *lower.Layer) (*tensor.Tensor, error) {
	at := map[*ir.Value]*tensor.Tensor{}
	for _, v := range l.Inputs {
		if i := slices.Index(w.Graph.Inputs, v); i >= 0 {
			at[v] = w.in[i]
		} else {
			at[v] = w.got[w.Output[v]]
		}
	}
	for _, n := range l.Nodes {
		in := make([]*tensor.Tensor, len(n.Inputs))
		for i, v := range n.Inputs {
			if in[i] = at[v]; in[i] == nil {
				in[i] = v.Const
			}
		}
		out, err := core.Eval(n, in)
		if err != nil {
			return nil, err
		}
		for i, v := range n.Outputs {
			at[v] = out[i]
		}
	}
	return at[l.Root], nil
}

func (w *watched) fault(i int, err error) *layerFault {
	l := w.Layers[i]
	f := &layerFault{Layer: i, Op: l.Op(), Node: l.Origin(), Value: l.Root.Name, Error: outcome(err)}
	for _, s := range w.Program.Steps {
		if s.Layer == l.Root.Name {
			f.Kernels = append(f.Kernels, artifact.KernelName(s.Kernel.Family, s.Kernel.String()))
		}
	}
	return f
}

func (o *verifyOptions) reportBisection(r *bisection) error {
	if o.json {
		if err := o.JSON(r); err != nil {
			return err
		}
	} else {
		t := o.Table("what", "layer", "op", "node", "kernels", "value", "error")
		row := func(what string, f *layerFault) {
			if f != nil {
				t.Row(what, itoa(f.Layer), f.Op, f.Node, strings.Join(f.Kernels, " "), f.Value, f.Error)
			}
		}
		row("differs first", r.Differs)
		row("wrong by itself", r.Wrong)
		if r.Outputs != "" {
			t.Row("model", "", "", "", "", "outputs", r.Outputs)
		}
		t.Print()
	}
	o.Infof("%d of %d layers of %s compared with %s", r.Compared, r.Layers, r.Backend, r.Against)
	switch {
	case r.Differs != nil && r.Wrong == nil:
		o.Infof("no layer is wrong by itself: small differences grew from layer to layer")
	case r.Differs == nil && r.Outputs != "":
		o.Infof("all layers are right: what was done to the graph before kernels were made changed the outputs")
	case r.Compared == 0:
		return fault.New(fault.Verify, "no layer could be compared").Hint("the model moves values only, or folds to constants")
	}
	if r.Differs != nil || r.Outputs != "" {
		return &silentError{fault.Verify}
	}
	return nil
}
