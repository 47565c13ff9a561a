package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
	"github.com/lathe-ml/lathe/zoo/data"
)

// fidelity is how near a variant's results are to those of float64, and how
// often its classes are those of plain f32 multiply-adds.
type fidelity struct {
	RMS      *float64 `json:"relative_rms,omitempty"`           // of the outputs, the worst of them
	PeerRMS  *float64 `json:"peer_relative_rms,omitempty"`      // ONNX Runtime's
	Samples  int      `json:"samples,omitempty"`                // of the data set
	Agree    *float64 `json:"top1_agreement_percent,omitempty"` // with plain f32
	Top1     *float64 `json:"top1_percent,omitempty"`
	PlainTop *float64 `json:"plain_top1_percent,omitempty"` // of plain f32
}

// fidelities compares variants on the recorded or random inputs, and on the
// model's data set. What cannot be compared is a warning: a fault of lathe with
// one model does not cost the figures of all others.
func (o *benchOptions) fidelities(ctx context.Context, root, path string, m *suiteModel, variants []variant) (all map[variant]*fidelity, err error) {
	defer func() {
		if p := recover(); p != nil {
			o.Warnf("%s: not compared: panic: %v", m.name(), p)
			all, err = nil, ctx.Err()
		}
	}()
	e, model, set, err := o.subject(path)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	open := func(v variant) (*session, error) {
		opt := o.as(v).engine
		opt.threads = 1
		if err := opt.check(e); err != nil {
			return nil, err
		}
		return e.prepare(ctx, o.factory, opt, model, set)
	}
	all = map[variant]*fidelity{}
	others := map[variant]*session{}
	for _, v := range variants {
		s, err := open(v)
		if err != nil {
			continue // the timing says why
		}
		defer s.close()
		others[v], all[v] = s, &fidelity{}
	}
	if err := o.distances(ctx, e, model, set, others, all); err != nil {
		o.Warnf("%s: no errors: %v", m.name(), err)
	}
	if m.set.data == "" || len(set.Inputs) != 1 || ctx.Err() != nil {
		return all, ctx.Err()
	}
	plain, err := open(variant{precision: string(precision.IEEE)})
	if err != nil {
		o.Warnf("%s: no classes to compare with: %v", m.name(), err)
		return all, ctx.Err()
	}
	defer plain.close()
	in := set.Inputs[0].Unwrap().Tensor
	d, err := m.set.open(root, model, in)
	if err != nil {
		return nil, err
	}
	return all, d.compare(ctx, in, plain, others, all)
}

// distances are those of all variants and of ONNX Runtime to the model in
// float64.
func (o *benchOptions) distances(ctx context.Context, e engine, m *onnxfile.Model, set *conformance.Set, others map[variant]*session, all map[variant]*fidelity) error {
	want, err := o.twinOutputs(ctx, e, m, set)
	if err != nil {
		return err
	}
	var peer *float64
	if s, err := preparePeer(ctx, o.factory, engineOptions{threads: 1, peer: o.engine.peer}, m, set); err == nil {
		defer s.close()
		if peer, err = distance(ctx, s, want); err != nil {
			return err
		}
	}
	for v, s := range others {
		if all[v].RMS, err = distance(ctx, s, want); err != nil {
			return err
		}
		all[v].PeerRMS = peer
	}
	return nil
}

// twinOutputs runs the model in float64.
func (o *benchOptions) twinOutputs(ctx context.Context, e engine, m *onnxfile.Model, set *conformance.Set) ([]*ir.Data, error) {
	b := compiledBackends[e.name]
	if b == nil {
		return nil, fault.New(fault.Usage, "the backend %s compiles nothing", e.name)
	}
	x, in, _, err := conformance.Ready(m, set)
	if err != nil {
		return nil, err
	}
	g, err := wide.Graph(x.Graph, x.Graph.Outputs)
	if err != nil {
		return nil, err
	}
	for i, v := range g.Inputs {
		in[i] = tensor.Convert(in[i], v.DType())
	}
	s, err := prepareGraph(ctx, o.factory, b(), g, in, engineOptions{threads: 1})
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	return s.outputs()
}

// distance is the relative RMS of the difference of a session's outputs to what
// they should be, of the output where it is largest; nil if none is of floats.
func distance(ctx context.Context, s *session, want []*ir.Data) (*float64, error) {
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	got, err := s.outputs()
	if err != nil {
		return nil, err
	}
	var worst *float64
	for i := range min(len(want), len(got)) {
		a, b := got[i].Unwrap(), want[i].Unwrap()
		if a == nil || a.Tensor == nil || !a.Tensor.DType.IsFloat() || a.Tensor.Len() != b.Tensor.Len() {
			continue
		}
		d := wide.Of(a.Tensor, b.Tensor)
		if d.Broken > 0 {
			return nil, fmt.Errorf("%d values of output %d are finite on one side only", d.Broken, i)
		}
		if worst == nil || d.RMS > *worst {
			worst = &d.RMS
		}
	}
	return worst, nil
}

// samples is an opened data set.
type samples struct {
	n      int
	fill   func(i int, t *tensor.Tensor, at int) error // sample i becomes the values from at on
	labels []int
}

// open reads the data set for an input.
func (d dataSet) open(root string, m *onnxfile.Model, in *tensor.Tensor) (*samples, error) {
	path := filepath.Join(root, filepath.FromSlash(d.data))
	s := &samples{}
	var values, labels *tensor.Tensor
	var err error
	switch {
	case strings.HasSuffix(path, ".txt"):
		return d.pictures(path, m, in)
	case strings.HasSuffix(path, ".bin.gz"):
		values, labels, err = data.ReadCIFAR10(path)
	case strings.HasSuffix(path, ".bin"):
		var b []byte
		if b, err = data.ReadBytes(path); err == nil {
			values, err = tensor.FromBytes(tensor.I8, []int{len(b)}, b)
		}
	default:
		values, err = readOne(path)
	}
	if err != nil {
		return nil, err
	}
	size := in.Len() / max(in.Shape[0], 1)
	if size == 0 || values.Len()%size != 0 {
		return nil, fault.New(fault.BadModel, "%d values are not a number of inputs of %d", values.Len(), size).InFile(path)
	}
	s.n = values.Len() / size / d.every
	s.fill = func(i int, t *tensor.Tensor, at int) error {
		for j := range size {
			t.SetFloat(at+j, d.scale*values.Float(i*d.every*size+j)+d.shift)
		}
		return nil
	}
	if d.labels != "" {
		if labels, err = readOne(filepath.Join(root, filepath.FromSlash(d.labels))); err != nil {
			return nil, err
		}
	}
	for i := range s.n {
		if labels != nil && i*d.every < labels.Len() {
			s.labels = append(s.labels, int(labels.Int(i*d.every))+d.first)
		}
	}
	return s, nil
}

// readOne reads a tensor; a file of a kind that has no header is bytes.
func readOne(path string) (*tensor.Tensor, error) {
	if !data.Readable(path) {
		b, err := data.ReadBytes(path)
		if err != nil {
			return nil, err
		}
		return tensor.FromBytes(tensor.U8, []int{len(b)}, b)
	}
	ts, err := data.Read(path, nil)
	if err != nil {
		return nil, err
	}
	return ts[0].Tensor, nil
}

// pictures reads a list of class, name and file, one per line.
func (d dataSet) pictures(path string, m *onnxfile.Model, in *tensor.Tensor) (*samples, error) {
	b, err := data.ReadBytes(path)
	if err != nil {
		return nil, err
	}
	var files []string
	s := &samples{}
	n := 0
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if n++; len(words) < 2 || (n-1)%d.every != 0 {
			continue
		}
		class, err := strconv.Atoi(words[0])
		if err != nil {
			return nil, fault.New(fault.BadModel, "line %d: %q is not a class", n, words[0]).InFile(path)
		}
		files = append(files, filepath.Join(filepath.Dir(path), words[len(words)-1]))
		s.labels = append(s.labels, class+d.first)
	}
	s.n = len(files)
	recipe := d.recipe.For(in.DType, in.Shape)
	s.fill = func(i int, t *tensor.Tensor, at int) error {
		ts, err := data.Read(files[i], recipe)
		if err != nil {
			return err
		}
		if got := ts[0].Tensor; got.Len() != t.Len()/t.Shape[0] {
			return fault.New(fault.BadModel, "the picture became %s, the model takes %s", got, t).InFile(files[i])
		}
		for j := range ts[0].Tensor.Len() {
			t.SetFloat(at+j, ts[0].Tensor.Float(j))
		}
		return nil
	}
	return s, nil
}

// compare runs the plain session and the others on every sample. They all read
// the tensor in.
func (s *samples) compare(ctx context.Context, in *tensor.Tensor, plain *session, others map[variant]*session, all map[variant]*fidelity) error {
	batch := max(in.Shape[0], 1)
	size := in.Len() / batch
	want, right, n := make([]int, batch), 0, 0
	same, hits := map[variant]int{}, map[variant]int{}
	for ; n+batch <= s.n; n += batch {
		for i := range batch {
			if err := s.fill(n+i, in, i*size); err != nil {
				return err
			}
		}
		label := func(i int) int {
			if n+i < len(s.labels) {
				return s.labels[n+i]
			}
			return -1
		}
		if err := best(ctx, plain, want); err != nil {
			return err
		}
		for i, c := range want {
			right += count(c == label(i))
		}
		got := make([]int, batch)
		for v, q := range others {
			if err := best(ctx, q, got); err != nil {
				return err
			}
			for i, c := range got {
				same[v] += count(c == want[i])
				hits[v] += count(c == label(i))
			}
		}
	}
	if n == 0 {
		return fault.New(fault.BadModel, "the data set has %d samples, a run takes %d", s.n, batch)
	}
	percent := func(k int) *float64 { p := 100 * float64(k) / float64(n); return &p }
	for v, f := range all {
		f.Samples, f.Agree = n, percent(same[v])
		if len(s.labels) > 0 {
			f.Top1, f.PlainTop = percent(hits[v]), percent(right)
		}
	}
	return nil
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// best runs a session and gives the class of the highest score, row by row of
// the first output.
func best(ctx context.Context, s *session, classes []int) error {
	if err := s.run(ctx); err != nil {
		return err
	}
	outs, err := s.outputs()
	if err != nil {
		return err
	}
	t := outs[0].Unwrap().Tensor
	width := t.Len() / len(classes)
	if width == 0 || width*len(classes) != t.Len() {
		return fmt.Errorf("the output %s has no row of scores for each of %d samples", t, len(classes))
	}
	for i := range classes {
		classes[i] = 0
		for c := range width {
			if t.Float(i*width+c) > t.Float(i*width+classes[i]) {
				classes[i] = c
			}
		}
	}
	return nil
}
