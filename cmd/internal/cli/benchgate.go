package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"

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

var gateForm = regexp.MustCompile(`^\s*([a-z0-9_]+)\s*([<>])\s*([0-9.]+)\s*(ms|us|s|%|)\s*$`)

// gateMetrics are the figures that a gate may name.
var gateMetrics = map[string]func(benchResult) float64{
	"min":     func(r benchResult) float64 { return r.Latency.Min },
	"median":  func(r benchResult) float64 { return r.Latency.Median },
	"mean":    func(r benchResult) float64 { return r.Latency.Mean },
	"p90":     func(r benchResult) float64 { return r.Latency.P90 },
	"p99":     func(r benchResult) float64 { return r.Latency.P99 },
	"ratio":   func(r benchResult) float64 { return *r.Ratio },
	"prepare": func(r benchResult) float64 { return r.Latency.Prepare },
}

func parseGates(texts []string, baseline, peer bool) ([]gate, error) {
	var gates []gate
	for _, text := range texts {
		p := gateForm.FindStringSubmatch(text)
		if p == nil {
			return nil, fault.New(fault.Usage, "cannot read --fail-if %q", text).Hint("write ratio<0.5, median>20ms or median>5%%")
		}
		g := gate{text: text, metric: p[1], above: p[2] == ">", rel: p[4] == "%"}
		if gateMetrics[g.metric] == nil {
			return nil, fault.New(fault.Usage, "--fail-if %q: no figure %q", text, g.metric).Hint("use one of: %v", sortedKeys(gateMetrics))
		}
		v, err := strconv.ParseFloat(p[3], 64)
		if err != nil {
			return nil, fault.New(fault.Usage, "--fail-if %q: %q is not a number", text, p[3])
		}
		g.limit = v * map[string]float64{"ms": 1, "us": 1e-3, "s": 1e3, "%": 1, "": 1}[p[4]]
		switch {
		case g.rel && (!baseline || g.metric != "median"):
			return nil, fault.New(fault.Usage, "--fail-if %q: a percentage compares the median with --baseline", text)
		case g.metric == "ratio" && !peer:
			return nil, fault.New(fault.Usage, "--fail-if %q: the ratio needs --peer", text)
		}
		gates = append(gates, g)
	}
	return gates, nil
}

// checkGates gives the first gate that is not met. A model that could not be
// timed, or has no baseline, meets none.
func checkGates(gates []gate, results []benchResult) error {
	for _, g := range gates {
		for _, r := range results {
			if r.Latency == nil || (g.rel && r.Baseline == nil) || (g.metric == "ratio" && r.Ratio == nil) {
				return fault.New(fault.Gate, "%s: there is no figure to check %q with", r.Model, g.text)
			}
			v := gateMetrics[g.metric](r)
			if g.rel {
				v = 100 * (v / *r.Baseline - 1)
			}
			if g.above == (v > g.limit) && v != g.limit {
				return fault.New(fault.Gate, "%s: %s is %.4g (%s)", r.Model, g.metric, v, g.text)
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

// readBaseline reads the medians of an earlier report.
func readBaseline(path string) (map[baseKey]float64, error) {
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
	base := map[baseKey]float64{}
	for _, r := range rep.Models {
		if r.Latency != nil {
			base[baseKey{r.Model, r.Threads}] = r.Latency.Median
		}
	}
	return base, nil
}
