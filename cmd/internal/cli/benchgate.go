package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// gate is a --fail-if: a figure, a comparison, a limit.
type gate struct {
	text   string
	metric string
	above  bool
	limit  float64
	rel    bool // in percent over the baseline
}

var gateForm = regexp.MustCompile(`^\s*([a-z0-9_]+)\s*([<>])\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*(ms|us|s|MiB|%|)\s*$`)

// metric is a figure that a gate may name: nil where a result has none.
type metric struct {
	unit  string // of the figure
	needs string // the flag without which there is no such figure
	of    func(benchResult) *float64
}

func latencyMetric(of func(*latency) *float64) metric {
	return metric{"ms", "", func(r benchResult) *float64 {
		if r.Latency == nil {
			return nil
		}
		return of(r.Latency)
	}}
}

func footprintMetric(unit string, of func(*footprint) *float64) metric {
	return metric{unit, "--footprint", func(r benchResult) *float64 {
		if r.Footprint == nil {
			return nil
		}
		return of(r.Footprint)
	}}
}

// gateMetrics are the figures that a gate may name.
var gateMetrics = map[string]metric{
	"min":          latencyMetric(func(l *latency) *float64 { return &l.Min }),
	"median":       latencyMetric(func(l *latency) *float64 { return &l.Median }),
	"mean":         latencyMetric(func(l *latency) *float64 { return &l.Mean }),
	"p50":          latencyMetric(func(l *latency) *float64 { return &l.Median }),
	"p90":          latencyMetric(func(l *latency) *float64 { return &l.P90 }),
	"p95":          latencyMetric(func(l *latency) *float64 { return &l.P95 }),
	"p99":          latencyMetric(func(l *latency) *float64 { return &l.P99 }),
	"max":          latencyMetric(func(l *latency) *float64 { return &l.Max }),
	"prepare":      latencyMetric(func(l *latency) *float64 { return &l.Prepare }),
	"ratio":        {"", "--peer", func(r benchResult) *float64 { return r.Ratio }},
	"start":        footprintMetric("ms", func(f *footprint) *float64 { return &f.First }),
	"memory":       footprintMetric("MiB", func(f *footprint) *float64 { return &f.Peak }),
	"error":        errorMetric(func(r *errorReport) *float64 { return &r.Output }),
	"excess":       errorMetric(func(r *errorReport) *float64 { return &r.Excess }),
	"start_ratio":  {"", "--peer and --footprint", func(r benchResult) *float64 { return r.StartRatio }},
	"memory_ratio": {"", "--peer and --footprint", func(r benchResult) *float64 { return r.MemoryRatio }},
}

func errorMetric(of func(*errorReport) *float64) metric {
	return metric{"", "--errors", func(r benchResult) *float64 {
		if r.Errors == nil {
			return nil
		}
		return of(r.Errors)
	}}
}

// offers are the flags that give figures.
func (o *benchOptions) offers() map[string]bool {
	return map[string]bool{"": true, "--peer": o.peer != "", "--footprint": o.foot, "--peer and --footprint": o.peer != "" && o.foot, "--baseline": o.baseline != "", "--errors": o.errors}
}

func parseGates(texts []string, offers map[string]bool) ([]gate, error) {
	var gates []gate
	for _, text := range texts {
		p := gateForm.FindStringSubmatch(text)
		if p == nil {
			return nil, fault.New(fault.Usage, "cannot read --fail-if %q", text).Hint("write ratio<0.5, median>20ms or median>5%%")
		}
		g := gate{text: text, metric: p[1], above: p[2] == ">", rel: p[4] == "%"}
		m, ok := gateMetrics[g.metric]
		if !ok {
			return nil, fault.New(fault.Usage, "--fail-if %q: no figure %q", text, g.metric).Hint("use one of: %s", strings.Join(sortedKeys(gateMetrics), ", "))
		}
		v, err := strconv.ParseFloat(p[3], 64)
		if err != nil {
			return nil, fault.New(fault.Usage, "--fail-if %q: %q is not a number", text, p[3])
		}
		scale, timed := map[string]float64{"ms": 1, "us": 1e-3, "s": 1e3}[p[4]]
		g.limit = v
		switch {
		case timed && m.unit == "ms":
			g.limit *= scale
		case timed || p[4] == "MiB" && m.unit != "MiB":
			return nil, fault.New(fault.Usage, "--fail-if %q: %s is not in %s", text, g.metric, p[4])
		case g.rel && !offers["--baseline"]:
			return nil, fault.New(fault.Usage, "--fail-if %q: a percentage compares with --baseline", text)
		}
		if !offers[m.needs] {
			return nil, fault.New(fault.Usage, "--fail-if %q: %s needs %s", text, g.metric, m.needs)
		}
		gates = append(gates, g)
	}
	return gates, nil
}

// checkGates gives the first gate that is not met. A model that could not be
// timed, or has no baseline, meets none.
func checkGates(gates []gate, results []benchResult) error {
	for _, g := range gates {
		of := gateMetrics[g.metric].of
		for _, r := range results {
			v := of(r)
			if v == nil {
				return fault.New(fault.Gate, "%s: there is no figure to check %q with", r.Model, g.text)
			}
			now := *v
			if g.rel {
				if r.before == nil || of(*r.before) == nil {
					return fault.New(fault.Gate, "%s: the baseline has no figure to check %q with", r.Model, g.text)
				}
				now = 100 * (now / *of(*r.before) - 1)
			}
			if g.above && now > g.limit || !g.above && now < g.limit {
				return fault.New(fault.Gate, "%s: %s is %.4g (%s)", r.Model, g.metric, now, g.text)
			}
		}
	}
	return nil
}

// baseKey names what is compared with a baseline.
type baseKey struct {
	model   string
	threads int
}

// readBaseline reads an earlier report.
func readBaseline(path string) (map[baseKey]benchResult, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot read the baseline: %w", err)
	}
	var rep struct {
		Models []benchResult `json:"models"`
	}
	if err := json.Unmarshal(b, &rep); err != nil {
		return nil, fault.New(fault.BadModel, "not a report of lathe bench: %w", err).InFile(path)
	}
	base := map[baseKey]benchResult{}
	for _, r := range rep.Models {
		if r.Latency != nil {
			base[baseKey{r.Model, r.Threads}] = r
		}
	}
	return base, nil
}
