package cli

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/search/tolerance"
)

// layerModes is the precision of each layer of a model: what --tolerance picks
// and --precisions reads.
type layerModes struct {
	Default precision.Mode            `json:"default"`
	Layers  map[string]precision.Mode `json:"layers"` // those that differ
}

func (m *layerModes) at(layer string) precision.Mode {
	if x, ok := m.Layers[layer]; ok {
		return x
	}
	return m.Default
}

func readLayerModes(path string) (*layerModes, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot read the precisions: %w", err)
	}
	m := &layerModes{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fault.New(fault.BadModel, "no precisions of layers: %w", err).InFile(path)
	}
	for _, x := range append([]precision.Mode{m.Default}, sortedModes(m.Layers)...) {
		if _, err := precision.Parse(string(x)); err != nil {
			return nil, fault.New(fault.BadModel, "%w", err).InFile(path)
		}
	}
	return m, nil
}

func sortedModes(m map[string]precision.Mode) (list []precision.Mode) {
	for _, k := range sortedKeys(m) {
		list = append(list, m[k])
	}
	return list
}

// toleranceReport is what --tolerance picked, and how it was found.
type toleranceReport struct {
	Tolerance float64 `json:"tolerance"`
	// Error is the largest relative error of an output on the inputs that the
	// choice was made on, Check that on others.
	Error    float64 `json:"output_error"`
	Check    float64 `json:"check_error"`
	Fastest  float64 `json:"fastest_error"` // with the fastest precision everywhere
	Measured int     `json:"measured"`      // choices that were compiled and run
	// Time is about that of the contractions, in units of f32 multiply-adds.
	Time       float64    `json:"estimated_time"`
	Precisions layerModes `json:"precisions"`
	// Errors are those of the layers as they were picked.
	Errors *errorReport `json:"errors"`
}

// parseTolerance reads the value of --tolerance.
func parseTolerance(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0 && v < 1) {
		return 0, fault.New(fault.Usage, "--tolerance %q is no relative error between 0 and 1", s).Hint("write 1e-4")
	}
	return v, nil
}

// ladder are the precisions that a layer may get, the loosest first: those that
// --precision allows, all if it is not given.
func (c codegenFlags) ladder() ([]precision.Mode, error) {
	most := precision.Modes[len(precision.Modes)-1].Mode
	if c.precision != "" {
		m, err := precision.Parse(c.precision)
		if err != nil {
			return nil, err
		}
		most = m
	}
	var list []precision.Mode
	for _, m := range slices.Backward(precision.Modes) {
		if most.Allows(m.Mode) {
			list = append(list, m.Mode)
		}
	}
	return list, nil
}

// rung is a precision with what it makes of each layer.
type rung struct {
	mode   precision.Mode
	layers map[string]layerError
}

// pickPrecisions finds the fastest precision of each layer with which the
// outputs of a core graph keep a tolerance on two sets of inputs.
func pickPrecisions(ctx context.Context, f *factory, b backend.Backend, g *ir.Graph, sets [][]*tensor.Tensor, o engineOptions) (*toleranceReport, error) {
	budget, err := parseTolerance(o.tolerance)
	if err != nil {
		return nil, err
	}
	meter, err := newErrorMeter(f, b, g, sets, o)
	if err != nil {
		return nil, err
	}
	defer func() { meter.close() }()
	rungs, p, err := meter.rungs(ctx)
	if err != nil {
		return nil, err
	}
	names, layers, options := choices(rungs, p)
	base := precision.F32
	if strictest := rungs[len(rungs)-1].mode; !rungs[0].mode.Allows(base) {
		base = strictest
	}
	modes := func(pick []int) *layerModes {
		m := &layerModes{Default: base, Layers: map[string]precision.Mode{}}
		for i, name := range names {
			if mode := rungs[layers[i][pick[i]]].mode; mode != m.Default {
				m.Layers[name] = mode
			}
		}
		return m
	}
	r := &toleranceReport{Tolerance: budget}
	errorOn := func(set int) tolerance.Measure {
		return func(ctx context.Context, pick []int) (float64, error) {
			e, err := meter.outputError(ctx, set, meter.with("", modes(pick).at))
			if r.Measured++; r.Measured == 1 {
				r.Fastest = e
			}
			return e, err
		}
	}
	found, err := tolerance.Search(ctx, options, nil, budget, errorOn(0))
	for err == nil && found.Met {
		r.Error = found.Error
		if r.Check, err = errorOn(1)(ctx, found.Pick); err != nil || r.Check <= budget {
			break
		}
		// Other inputs show more: the choice goes on from there, on both.
		found, err = tolerance.Search(ctx, options, found.Pick, budget, func(ctx context.Context, pick []int) (float64, error) {
			x, err := errorOn(0)(ctx, pick)
			if err != nil {
				return 0, err
			}
			y, err := errorOn(1)(ctx, pick)
			return max(x, y), err
		})
	}
	switch {
	case err != nil:
		return nil, err
	case !found.Met:
		return nil, fault.New(fault.Gate, "no choice of precisions keeps --tolerance %s: with the most exact ones the error of the outputs is %.2g", o.tolerance, found.Error)
	}
	r.Precisions = *modes(found.Pick)
	for i, pick := range found.Pick {
		r.Time += options[i][pick].Cost
	}
	if r.Errors, err = meter.measure(ctx, 0, meter.with("", r.Precisions.at)); err != nil {
		return nil, err
	}
	r.Error = r.Errors.Output
	return r, nil
}

// rungs measures the layers in each precision that makes another form of one of
// them than the next stricter one, and gives the strictest program.
func (e *errorMeter) rungs(ctx context.Context) ([]rung, *program.Program, error) {
	ladder, err := e.o.ladder()
	if err != nil {
		return nil, nil, err
	}
	if ladder, err = e.able(ladder); err != nil {
		return nil, nil, err
	}
	var list []rung
	var last *program.Program
	for i, mode := range ladder {
		opt := e.with(mode, nil)
		p, err := compiler.Program(e.graph, e.t, opt)
		if err != nil {
			return nil, nil, err
		}
		if last = p; i+1 < len(ladder) {
			opt.Precision = ladder[i+1]
			q, err := compiler.Program(e.graph, e.t, opt)
			if err != nil {
				return nil, nil, err
			}
			if sameForms(formsOf(p), formsOf(q)) {
				continue
			}
			opt.Precision = mode
		}
		r, err := e.measure(ctx, 0, opt)
		if err != nil {
			return nil, nil, err
		}
		made := rung{mode, map[string]layerError{}}
		for _, x := range r.Layers {
			made.layers[x.Layer] = x
		}
		list = append(list, made)
	}
	return list, last, nil
}

// able leaves out the precisions that the target refuses.
func (e *errorMeter) able(ladder []precision.Mode) (list []precision.Mode, err error) {
	for _, mode := range ladder {
		if _, err = compiler.Program(e.graph, e.t, e.with(mode, nil)); err == nil {
			list = append(list, mode)
		} else if !fault.Is(err, fault.Unsupported) {
			return nil, err
		}
	}
	if len(list) == 0 {
		return nil, err
	}
	return list, nil
}

func sameForms(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// choices gives, for each layer, the rungs that it can be on and what they cost
// and add. Precisions that make the same form of a layer with about the same
// error are one option: f32 if it is among them, else the strictest.
func choices(rungs []rung, p *program.Program) (names []string, layers [][]int, options [][]tolerance.Option) {
	flops := map[string]float64{}
	for _, s := range p.Steps {
		if s.Layer != "" && s.Site != "" {
			flops[s.Layer] = max(flops[s.Layer], float64(s.Kernel.Flops)) // the contraction, not what makes ready for it
		}
	}
	for _, name := range sortedKeys(flops) {
		var at []int
		var all []tolerance.Option
		for k, r := range rungs {
			x, ok := r.layers[name]
			if !ok {
				continue
			}
			// What looser neighbours let a layer store narrower is worth a little.
			cost := flops[name] * lower.Effort(x.Form) * (1 - float64(len(rungs)-1-k)/100)
			if n := len(at); n > 0 && rungs[at[n-1]].layers[name].Form == x.Form && all[n-1].Error <= 2*x.Own.RMS {
				if rungs[at[n-1]].mode != precision.F32 {
					at[n-1], all[n-1] = k, tolerance.Option{Error: x.Own.RMS, Cost: cost}
				}
				continue
			}
			at = append(at, k)
			all = append(all, tolerance.Option{Error: x.Own.RMS, Cost: cost})
		}
		var keep []int
		var kept []tolerance.Option
		for _, k := range tolerance.Frontier(all) {
			keep, kept = append(keep, at[k]), append(kept, all[k])
		}
		if len(keep) > 0 {
			names, layers, options = append(names, name), append(layers, keep), append(options, kept)
		}
	}
	return names, layers, options
}

// otherInputs is a second set of inputs of the same kind: floats are moved by
// noise of a twentieth of their size, all else stays.
func otherInputs(in []*tensor.Tensor, seed uint64) []*tensor.Tensor {
	out := slices.Clone(in)
	draw := rand.New(rand.NewPCG(seed, 0x746f6c))
	for i, t := range in {
		if !t.DType.IsFloat() {
			continue
		}
		sum := 0.0
		for k := range t.Len() {
			sum += t.Float(k) * t.Float(k)
		}
		size := math.Sqrt(sum/float64(max(t.Len(), 1))) / 20
		out[i] = t.Clone()
		for k := range t.Len() {
			out[i].SetFloat(k, t.Float(k)+size*draw.NormFloat64())
		}
	}
	return out
}

// outputError is the largest relative error of an output with some options.
func (e *errorMeter) outputError(ctx context.Context, set int, o compiler.Options) (float64, error) {
	p, err := compiler.Program(e.graph, e.t, o)
	if err != nil {
		return 0, err
	}
	if e.twins[set] == nil {
		w, err := compiler.Watch(e.graph, e.t, o)
		if err != nil {
			return 0, err
		}
		if err := e.twin(ctx, w, set); err != nil {
			return 0, err
		}
	}
	got, err := e.run(ctx, p, e.sets[set], e.o.threads)
	if err != nil {
		return 0, err
	}
	most := 0.0
	for i, t := range got {
		if t.DType.IsFloat() {
			most = max(most, e.deviation(t, set, i).RMS)
		}
	}
	return most, nil
}
