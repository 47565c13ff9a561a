package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// latency are the percentiles of the runs, in milliseconds.
type latency struct {
	Runs    int     `json:"runs"`
	Min     float64 `json:"min"`
	Median  float64 `json:"median"`
	Mean    float64 `json:"mean"`
	P90     float64 `json:"p90"`
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	PerSec  float64 `json:"runs_per_second"`
	Prepare float64 `json:"prepare"` // reading and compiling, before the first run
}

// benchResult is one model in --json.
type benchResult struct {
	Model         string           `json:"model"`
	Backend       string           `json:"backend"`
	Threads       int              `json:"threads"`
	Latency       *latency         `json:"latency_ms,omitempty"`
	Peer          *latency         `json:"peer_latency_ms,omitempty"`
	PeerName      string           `json:"peer,omitempty"`
	Ratio         *float64         `json:"ratio,omitempty"`
	Footprint     *footprint       `json:"footprint,omitempty"`
	PeerFootprint *footprint       `json:"peer_footprint,omitempty"`
	StartRatio    *float64         `json:"start_ratio,omitempty"`  // our first result to the peer's session: below 1 lathe is faster
	MemoryRatio   *float64         `json:"memory_ratio,omitempty"` // our peak to the peer's: below 1 lathe needs less
	Baseline      *float64         `json:"baseline_median_ms,omitempty"`
	Profile       *profile         `json:"profile,omitempty"`
	Errors        *errorReport     `json:"errors,omitempty"`
	Tolerance     *toleranceReport `json:"tolerance,omitempty"`
	Error         string           `json:"error,omitempty"`

	before *benchResult // of the baseline
}

// benchReport is what `lathe bench --json` prints. With one model, its figures
// stand at the top too.
type benchReport struct {
	*benchResult
	GeoMean *float64      `json:"geomean_ratio,omitempty"`
	Means   []meanRatio   `json:"geomean_ratios,omitempty"` // with several numbers of threads
	Models  []benchResult `json:"models"`

	peerVersion string
}

// cells are a result's row in the table.
func (o *benchOptions) cells(r benchResult) []string {
	num := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	row := []string{r.Model, r.Backend, itoa(r.Threads)}
	note := r.Error
	if l := r.Latency; l != nil {
		row = append(row, num(l.Median, 3), num(l.P90, 3), num(l.P95, 3), num(l.P99, 3), num(l.Min, 3), num(l.PerSec, 1))
		if r.Baseline != nil {
			note = fmt.Sprintf("%+.1f %% against the baseline", 100*(l.Median / *r.Baseline - 1))
		}
	} else {
		row = append(row, make([]string, 6)...)
	}
	ratio := func(v *float64) string {
		if v == nil {
			return ""
		}
		return num(*v, 2)
	}
	if r.Peer != nil {
		row = append(row, num(r.Peer.Median, 3), ratio(r.Ratio))
	} else {
		row = append(row, "", "")
	}
	if o.foot {
		var start, memory = []string{"", "", ratio(r.StartRatio)}, []string{"", "", ratio(r.MemoryRatio)}
		if f := r.Footprint; f != nil {
			start[0], memory[0] = num(f.First, 2), num(f.Peak, 1)
		}
		if f := r.PeerFootprint; f != nil {
			start[1], memory[1] = num(f.Open, 2), num(f.Peak, 1)
		}
		row = append(append(row, start...), memory...)
	}
	return append(row, note)
}

// meanRatio is the geometric mean of the ratios with a number of threads.
type meanRatio struct {
	Threads int     `json:"threads"`
	Models  int     `json:"models"`
	Ratio   float64 `json:"geomean_ratio"`
}

// mean is the geometric mean of the ratios of the results that are wanted, and
// how many those are.
func (rep *benchReport) mean(want func(benchResult) bool) (float64, int) {
	logs, n := 0.0, 0
	for _, r := range rep.Models {
		if r.Ratio != nil && want(r) {
			logs, n = logs+math.Log(*r.Ratio), n+1
		}
	}
	return math.Exp(logs / float64(max(n, 1))), n
}

func (rep *benchReport) sum(threads []int) {
	if g, n := rep.mean(func(benchResult) bool { return true }); n > 1 {
		rep.GeoMean = &g
	}
	for _, t := range threads {
		if g, n := rep.mean(func(r benchResult) bool { return r.Threads == t }); n > 0 && len(threads) > 1 {
			rep.Means = append(rep.Means, meanRatio{t, n, g})
		}
	}
	if len(rep.Models) == 1 {
		rep.benchResult = &rep.Models[0]
	}
}

func (o *benchOptions) report(rep benchReport) error {
	if o.json {
		return o.JSON(rep)
	}
	head := []string{"model", "backend", ">threads", ">median ms", ">p90", ">p95", ">p99", ">min", ">runs/s", ">peer ms", ">ratio", "note"}
	if o.foot {
		head = slices.Insert(head, len(head)-1, ">start ms", ">peer session ms", ">ratio", ">peak MiB", ">peer MiB", ">ratio")
	}
	t := o.Table(head...)
	for _, r := range rep.Models {
		t.Row(o.cells(r)...)
	}
	t.Print()
	for _, r := range rep.Models {
		if r.Profile != nil {
			r.Profile.print(o.factory, r.Model)
		}
		if r.Errors != nil {
			r.Errors.print(o.factory, r.Model)
		}
	}
	for _, m := range rep.Means {
		o.Infof("%s: geometric mean of the ratios of %s: %.3f", plural(m.Threads, "thread"), plural(m.Models, "model"), m.Ratio)
	}
	if rep.GeoMean != nil {
		o.Infof("geometric mean of the ratios: %.3f", *rep.GeoMean)
	}
	return nil
}
