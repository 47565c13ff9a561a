package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// profileRuns is how often each step is timed: the shortest time counts, since
// whatever else the machine does only adds.
const profileRuns = 20

// trace is what a session's steps took.
type trace struct {
	man  *artifact.Manifest
	best []time.Duration
	runs int
}

// traceSteps times every step of some runs; of slow models fewer runs do.
func traceSteps(ctx context.Context, t cpu.Traced, in, out []*tensor.Tensor, runs int) (*trace, error) {
	tr := &trace{man: t.Manifest()}
	tr.best = make([]time.Duration, len(tr.man.Steps))
	const few, slow = 5, 20 * time.Second
	for start := time.Now(); tr.runs < runs && (tr.runs < few || time.Since(start) < slow); tr.runs++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := t.Trace(in, out, tr.best); err != nil {
			return nil, err
		}
	}
	return tr, nil
}

// rates are a step's time and what follows from it. What is too short for the
// clock has no rates.
type rates struct {
	US     float64  `json:"us"`
	Share  float64  `json:"share_percent"`
	Flops  int64    `json:"flops"`
	Bytes  int64    `json:"bytes"`
	GFLOPs *float64 `json:"gflop_per_s,omitempty"`
	GBs    *float64 `json:"gb_per_s,omitempty"`
	Roof   *float64 `json:"roofline_percent,omitempty"`
}

// stepProfile is a kernel call.
type stepProfile struct {
	Step   int    `json:"step"`
	Kernel string `json:"kernel"`
	Family string `json:"family"`
	Values string `json:"values"`
	Node   string `json:"node,omitempty"`
	rates
}

// familyProfile is the sum over all steps of a kernel family.
type familyProfile struct {
	Family string `json:"family"`
	Steps  int    `json:"steps"`
	rates
}

// profile is where the time of a run goes. Steps are in the order in which they
// run, families by time.
type profile struct {
	CPU      string          `json:"cpu"`
	Runs     int             `json:"runs"`
	US       float64         `json:"us"`
	Roofline *cpu.Roofline   `json:"roofline,omitempty"`
	Families []familyProfile `json:"families"`
	Steps    []stepProfile   `json:"steps"`
}

// work adds up what rates are made of; roof is the least time in seconds.
type work struct {
	took         time.Duration
	flops, bytes int64
	roof         float64
}

// newProfile turns a trace into figures. Without a roofline (nil) the share of
// it is left out, and so is the correction for what tracing costs.
func newProfile(tr *trace, roof *cpu.Roofline) *profile {
	p := &profile{CPU: tr.man.CPU, Runs: tr.runs, Roofline: roof, Families: []familyProfile{}, Steps: []stepProfile{}}
	var least time.Duration
	if roof != nil {
		least = roof.Probe
	}
	works, total := make([]work, len(tr.best)), work{}
	families, counts := map[string]work{}, map[string]int{}
	for i, s := range tr.man.Steps {
		w := work{took: max(tr.best[i]-least, 0), flops: s.Flops, bytes: s.Bytes}
		if roof != nil {
			w.roof = roof.Seconds(s.Flops, s.Bytes)
		}
		works[i] = w
		total.add(w)
		f := families[s.Family]
		f.add(w)
		families[s.Family] = f
		counts[s.Family]++
	}
	p.US = micros(total.took)
	for i, s := range tr.man.Steps {
		p.Steps = append(p.Steps, stepProfile{i, s.Kernel, s.Family, s.Values, s.Node, works[i].rates(total.took, least)})
	}
	for _, name := range sortedKeys(families) {
		p.Families = append(p.Families, familyProfile{name, counts[name], families[name].rates(total.took, least)})
	}
	slices.SortStableFunc(p.Families, func(a, b familyProfile) int { return cmp.Compare(b.US, a.US) })
	return p
}

func (w *work) add(v work) {
	w.took, w.flops, w.bytes, w.roof = w.took+v.took, w.flops+v.flops, w.bytes+v.bytes, w.roof+v.roof
}

// rates of some work in a run of a length; what took less than least has a time
// that is mostly the clock's.
func (w work) rates(total, least time.Duration) rates {
	r := rates{US: micros(w.took), Flops: w.flops, Bytes: w.bytes}
	if total > 0 {
		r.Share = 100 * float64(w.took) / float64(total)
	}
	if w.took <= least || w.took == 0 {
		return r
	}
	gflops, gbs := float64(w.flops)/float64(w.took), float64(w.bytes)/float64(w.took)
	r.GFLOPs, r.GBs = &gflops, &gbs
	if w.roof > 0 {
		roof := 100 * w.roof / w.took.Seconds()
		r.Roof = &roof
	}
	return r
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// profileOf times the steps of a model that is ready to run.
func (o *benchOptions) profileOf(ctx context.Context, l *local, path string) (*profile, error) {
	if l.s.profile == nil {
		return nil, fault.New(fault.Usage, "only native code can be profiled").InFile(path).Hint("use --backend cpu, or an artifact of lathe compile --target cpu")
	}
	tr, err := l.s.profile(ctx, profileRuns)
	if err != nil {
		return nil, err
	}
	roof, err := o.roofline(ctx, tr.man.CPU)
	if err != nil {
		return nil, err
	}
	return newProfile(tr, roof), nil
}

// roofline measures this machine once per CPU level and number of threads. No
// compiler is no error: an artifact runs without one.
func (o *benchOptions) roofline(ctx context.Context, cpuName string) (*cpu.Roofline, error) {
	key := fmt.Sprint(cpuName, o.engine.threads)
	if r, ok := o.roofs[key]; ok {
		return r, nil
	}
	cache, err := o.objectCache()
	if err != nil {
		return nil, err
	}
	r, err := cpu.MeasureRoofline(ctx, cpuName, o.engine.compiler, o.engine.threads, cache)
	if fault.Is(err, fault.Toolchain) {
		o.Warnf("no roofline: %v", err)
		r, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("measuring the roofline: %w", err)
	}
	if o.roofs == nil {
		o.roofs = map[string]*cpu.Roofline{}
	}
	o.roofs[key] = r
	return r, nil
}

// rooflineText says what was measured, and how.
func rooflineText(r *cpu.Roofline) string {
	var sets []string
	for _, b := range r.Bandwidth {
		sets = append(sets, fmt.Sprintf("%s (%s) %.0f", b.Level, bytesText(int64(b.Bytes)), b.GBps))
	}
	return fmt.Sprintf("roofline of this machine, measured just now with loops compiled for %s on %s: %.1f GFLOP/s of f32 multiply-adds, reads in GB/s by working set per thread: %s; tracing costs %d ns per step, which is taken off",
		r.CPU, plural(r.Threads, "thread"), r.Peak, strings.Join(sets, ", "), r.Probe.Nanoseconds())
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return itoa(n) + " " + what + "s"
}

// Cells are the columns that steps and families share.
func (r rates) Cells() []string {
	num := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'f', 1, 64)
	}
	return []string{strconv.FormatFloat(r.US, 'f', 1, 64), strconv.FormatFloat(r.Share, 'f', 1, 64), num(r.GFLOPs), num(r.GBs), num(r.Roof)}
}

// byTime are the steps, the longest first.
func (p *profile) byTime() []stepProfile {
	steps := slices.Clone(p.Steps)
	slices.SortStableFunc(steps, func(a, b stepProfile) int { return cmp.Compare(b.US, a.US) })
	return steps
}

// print writes the families and then the steps.
func (p *profile) print(f *factory, name string) {
	f.Infof("%s: %.1f µs in %s, the shortest of %s each", name, p.US, plural(len(p.Steps), "step"), plural(p.Runs, "run"))
	if p.Roofline != nil {
		f.Infof("%s", rooflineText(p.Roofline))
	}
	t := f.Table(">µs", ">share %", ">GFLOP/s", ">GB/s", ">% of roofline", ">steps", "family")
	for _, x := range p.Families {
		t.Row(append(x.Cells(), itoa(x.Steps), x.Family)...)
	}
	t.Print()
	t = f.Table(">µs", ">share %", ">GFLOP/s", ">GB/s", ">% of roofline", ">step", "family", "kernel", "values", "node")
	for _, x := range p.byTime() {
		t.Row(append(x.Cells(), itoa(x.Step), x.Family, x.Kernel, x.Values, x.Node)...)
	}
	t.Print()
}
