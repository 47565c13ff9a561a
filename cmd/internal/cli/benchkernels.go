package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
)

// kernelBar is the share of the ceiling, in percent, that kernels are held to.
const kernelBar = 80

// kernelResult is a case of --kernels: the time of all kernels that a layer
// became, beside what the machine could do at that moment.
type kernelResult struct {
	Variant  string   `json:"variant"`
	CPU      string   `json:"cpu"`
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Shape    string   `json:"shape"`
	Families []string `json:"families"`
	US       float64  `json:"us"`
	Flops    int64    `json:"flops"`
	Bytes    int64    `json:"bytes"`
	GFLOPs   float64  `json:"gflop_per_s"`
	GBs      float64  `json:"gb_per_s"`
	Peak     float64  `json:"peak_gflops"`
	Copy     float64  `json:"memcpy_gb_per_s"`
	OfPeak   float64  `json:"peak_percent"`
	OfCopy   float64  `json:"memcpy_percent"`
	Error    string   `json:"error,omitempty"`
}

// share is the percentage that the case is held to, and false where it is held
// to none.
func (r kernelResult) share() (float64, bool) {
	switch r.Kind {
	case "conv", "matmul":
		return r.OfPeak, true
	case "memory":
		return r.OfCopy, true
	}
	return max(r.OfPeak, r.OfCopy), false
}

// kernelSum is how many cases of a kind reach the bar.
type kernelSum struct {
	Variant string  `json:"variant"`
	Kind    string  `json:"kind"`
	Cases   int     `json:"cases"`
	Reach   int     `json:"reach_bar"`
	Least   float64 `json:"least_percent"`
	Mid     float64 `json:"median_percent"`
}

type kernelReport struct {
	Bar     float64        `json:"bar_percent"`
	Threads int            `json:"threads"`
	Kernels []kernelResult `json:"kernels"`
	Sums    []kernelSum    `json:"sums"`
}

// runKernels times the table of layers for each of --variants, else for --cpu
// and --precision.
func (o *benchOptions) runKernels(ctx context.Context) error {
	if err := o.checkKernels(); err != nil {
		return err
	}
	rep := kernelReport{Bar: kernelBar, Threads: o.threads[0], Kernels: []kernelResult{}}
	o.engine.threads = o.threads[0]
	variants := []variant{{o.engine.precision, o.engine.cpu}}
	if len(o.variants) > 0 {
		var err error
		if variants, err = parseVariants(o.variants); err != nil {
			return err
		}
	}
	cases := slices.DeleteFunc(slices.Clone(kernelCases), func(c kernelCase) bool {
		return o.kernels != "all" && !strings.Contains(c.Kind+" "+c.Name+" "+c.Shape, o.kernels)
	})
	if len(cases) == 0 {
		return fault.New(fault.Usage, "no layer of the table is called %q", o.kernels).Hint("use all, conv, matmul, memory, other or a part of a name")
	}
	bar := o.Progress("timing", len(cases)*len(variants))
	defer bar.Done()
	for _, v := range variants {
		list, err := o.as(v).kernelsFor(ctx, cases, func(c kernelCase) { bar.Describe(c.Name + " " + c.Shape); bar.Add(1) })
		if err != nil {
			return err
		}
		rep.Kernels = append(rep.Kernels, list...)
	}
	rep.sum()
	if o.table != "" {
		if err := writeFile(o.table, o.kernelMarkdown(rep)); err != nil {
			return err
		}
	}
	return o.printKernels(rep)
}

func (o *benchOptions) checkKernels() error {
	switch {
	case len(o.threads) != 1 || o.threads[0] < 1:
		return fault.New(fault.Usage, "--kernels takes one number of threads")
	case len(o.variants) > 0 && (o.engine.cpu != "" || o.engine.precision != ""):
		return fault.New(fault.Usage, "--variants names precisions and CPUs: give it without --cpu and --precision")
	case o.peer != "" || o.profile || o.page != "" || o.baseline != "" || len(o.failIf) > 0:
		return fault.New(fault.Usage, "--kernels goes with none of --peer, --profile, --report, --baseline and --fail-if")
	}
	return o.checkFiles()
}

// kernelsFor times cases for one level. A case that cannot be compiled is
// reported and left out of the sums.
func (o *benchOptions) kernelsFor(ctx context.Context, cases []kernelCase, next func(kernelCase)) ([]kernelResult, error) {
	e, err := findEngine("cpu")
	if err == nil {
		err = o.engine.check(e)
	}
	if err != nil {
		return nil, err
	}
	cache, err := o.objectCache()
	if err != nil {
		return nil, err
	}
	p, err := cpu.OpenProbe(ctx, o.engine.cpu, o.engine.compiler, cache)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var list []kernelResult
	for _, c := range cases {
		next(c)
		r, err := o.kernel(ctx, e, p, c)
		if ctx.Err() != nil || fault.Is(err, fault.Toolchain) {
			return nil, err
		}
		if err != nil {
			r.Error = err.Error()
		}
		r.Variant = variant{precision.Mode(o.engine.precision).String(), p.CPU()}.String()
		list = append(list, r)
	}
	return list, nil
}

// kernelRounds is how often a case and the ceilings are measured in turn, so
// that both see the machine in the same states.
const kernelRounds = 4

func (o *benchOptions) kernel(ctx context.Context, e engine, p *cpu.Probe, c kernelCase) (kernelResult, error) {
	r := kernelResult{Kind: c.Kind, Name: c.Name, Shape: c.Shape, CPU: p.CPU(), Families: []string{}}
	k, err := newSketch(c)
	if err != nil {
		return r, err
	}
	m := onnxfile.New(k.g, 17)
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return r, err
	}
	s, err := e.prepare(ctx, o.factory, o.engine, m, set)
	if err != nil {
		return r, err
	}
	defer s.close()
	var best *trace
	for range kernelRounds {
		r.Peak = max(r.Peak, p.Peak(o.engine.threads))
		r.Copy = max(r.Copy, p.Copy(o.engine.threads, int(k.bytes)/o.engine.threads))
		tr, err := s.profile(ctx, profileRuns)
		if err != nil {
			return r, err
		}
		best = best.fastest(tr)
	}
	r.Flops, r.Bytes = k.flops, k.bytes
	return r, r.add(best, p.Gap())
}

// fastest is the shorter time of each step.
func (tr *trace) fastest(other *trace) *trace {
	if tr == nil {
		return other
	}
	for i, d := range other.best {
		tr.best[i] = min(tr.best[i], d)
	}
	tr.runs += other.runs
	return tr
}

// add sums up the steps that the subject became.
func (r *kernelResult) add(tr *trace, gap time.Duration) error {
	var took time.Duration
	for i, s := range tr.man.Steps {
		if s.Node != subjectName {
			continue
		}
		took += max(tr.best[i]-gap, 0)
		if !slices.Contains(r.Families, s.Family) {
			r.Families = append(r.Families, s.Family)
		}
	}
	if took == 0 {
		return fmt.Errorf("no kernel of %s %s was found", r.Name, r.Shape)
	}
	ns := float64(took.Nanoseconds())
	r.US = ns / 1e3
	r.GFLOPs, r.GBs = float64(r.Flops)/ns, float64(r.Bytes)/ns
	r.OfPeak, r.OfCopy = 100*r.GFLOPs/r.Peak, 100*r.GBs/r.Copy
	return nil
}

func (rep *kernelReport) sum() {
	groups := map[[2]string][]float64{}
	var order [][2]string
	for _, r := range rep.Kernels {
		key := [2]string{r.Variant, r.Kind}
		v, held := r.share()
		if !held || r.Error != "" {
			continue
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], v)
	}
	for _, key := range order {
		list := groups[key]
		slices.Sort(list)
		s := kernelSum{Variant: key[0], Kind: key[1], Cases: len(list), Least: list[0], Mid: list[len(list)/2]}
		for _, v := range list {
			if v >= rep.Bar {
				s.Reach++
			}
		}
		rep.Sums = append(rep.Sums, s)
	}
}

// kernelCells are the columns of a case.
func kernelCells(r kernelResult) []string {
	num := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	if r.Error != "" {
		return []string{r.Kind, r.Name, r.Shape, "", "", "", "", "", "", r.Error}
	}
	cells := []string{r.Kind, r.Name, r.Shape, num(r.US), "", "", num(r.GBs), num(r.OfCopy), "", strings.Join(r.Families, " + ")}
	if r.Flops > 0 {
		cells[4], cells[5] = num(r.GFLOPs), num(r.OfPeak)
	}
	if v, held := r.share(); held && v < kernelBar {
		cells[8] = "below"
	}
	return cells
}

func (o *benchOptions) printKernels(rep kernelReport) error {
	if o.json {
		return o.JSON(rep)
	}
	t := o.Table("variant", "kind", "layer", "shape", ">µs", ">GFLOP/s", ">% of peak", ">GB/s", ">% of memcpy", "bar", "kernels")
	for _, r := range rep.Kernels {
		t.Row(append([]string{r.Variant}, kernelCells(r)...)...)
	}
	t.Print()
	for _, s := range rep.Sums {
		o.Infof("%s, %s: %d of %d at %g %% of the ceiling or more; median %.1f %%, least %.1f %%", s.Variant, s.Kind, s.Reach, s.Cases, rep.Bar, s.Mid, s.Least)
	}
	return nil
}

// kernelMarkdown is docs/kernels.md.
func (o *benchOptions) kernelMarkdown(rep kernelReport) []byte {
	var b bytes.Buffer
	var levels, names []string
	for _, r := range rep.Kernels {
		if !slices.Contains(levels, r.CPU) {
			levels = append(levels, r.CPU)
		}
		if !slices.Contains(names, r.Variant) {
			names = append(names, r.Variant)
		}
	}
	b.WriteString("# Kernels\n\n")
	o.markdownHead(&b, strings.Join(levels, ", "), "")
	fmt.Fprintf(&b, `
Written by `+"`make bench-kernels`"+`. Layers of well-known networks, each in a small network of its own, on %s. The
time is the least of %d runs. GFLOP/s count the multiply-adds of the op as it is
defined, so that algorithms that need fewer (winograd) can be above the peak. The
peak is that of f32 multiply-adds from registers, and memcpy is that of the C
library in a working set of the same size; both are measured in turn with the
layer, with code for the same CPU level. GB/s are the bytes that the op has to
read and to write. Convolutions and products with matrices are held to %d %% of
the peak, ops that are bound by memory to %d %% of memcpy. f32-ieee has plain
multiply-adds alone, f32 whatever has the error of f32 sums.

`, plural(rep.Threads, "thread"), kernelRounds*profileRuns, kernelBar, kernelBar)
	b.WriteString("| variant | kind | cases | at the bar | median % | least % |\n|---|---|---:|---:|---:|---:|\n")
	for _, s := range rep.Sums {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %.1f | %.1f |\n", s.Variant, s.Kind, s.Cases, s.Reach, s.Mid, s.Least)
	}
	for _, name := range names {
		fmt.Fprintf(&b, "\n## %s\n\n| kind | layer | shape | µs | GFLOP/s | %% of peak | GB/s | %% of memcpy | bar | kernels |\n|---|---|---|---:|---:|---:|---:|---:|---|---|\n", name)
		for _, r := range rep.Kernels {
			if r.Variant == name {
				cells := kernelCells(r)
				for i := range cells {
					cells[i] = markdownText(cells[i])
				}
				fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
			}
		}
	}
	return b.Bytes()
}
