package cli

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// The plot's size and margins in units of its own.
const (
	plotW, plotH         = 960, 480
	plotLeft, plotBottom = 64, 46
	plotTop, plotRight   = 20, 24
)

// colors is how many families have a colour of their own, the last being that
// of all others.
const colors = 8

// plotLine is a roof: a bandwidth's slope up to the peak, or a line of the grid.
type plotLine struct {
	X1, Y1, X2, Y2 float64
	Class          string
}

// plotDot is a step or a text.
type plotDot struct {
	X, Y, R       float64
	Text          string
	Class, Anchor string
}

// profileCard is a figure at the head of the page.
type profileCard struct{ Label, Value string }

// familyView and stepView are rows with their colours.
type familyView struct {
	familyProfile
	Class string
}

type stepView struct {
	stepProfile
	Class     string
	OfLongest float64 // share of the longest step's time, in percent
}

// profileView is one profile as the page shows it.
type profileView struct {
	Name, Threads string
	Cards         []profileCard
	Roof          string // what was measured, "" if nothing was
	Missing       string // steps that are not in the plot
	*profile
	ByFamily []familyView
	ByTime   []stepView
	Lines    []plotLine
	Dots     []plotDot
	XTicks   []plotDot
	YTicks   []plotDot
	Labels   []plotDot
	Legend   []plotDot
}

// The plot's places that the page needs.
func (profileView) W() int    { return plotW }
func (profileView) H() int    { return plotH }
func (profileView) MidX() int { return (plotLeft + plotW - plotRight) / 2 }
func (profileView) MidY() int { return (plotTop + plotH - plotBottom) / 2 }
func (profileView) Foot() int { return plotH - 8 }

func profileViews(models []benchResult) []*profileView {
	var views []*profileView
	for _, m := range models {
		if m.Profile == nil {
			continue
		}
		v := &profileView{Name: displayName(m.Model), Threads: plural(m.Threads, "thread"), profile: m.Profile, Cards: cards(m)}
		class := map[string]string{}
		for i, f := range m.Profile.Families {
			class[f.Family] = "f" + strconv.Itoa(min(i, colors-1))
			v.ByFamily = append(v.ByFamily, familyView{f, class[f.Family]})
		}
		for _, s := range m.Profile.byTime() {
			longest := s.US
			if len(v.ByTime) > 0 {
				longest = v.ByTime[0].US
			}
			v.ByTime = append(v.ByTime, stepView{s, class[s.Family], 100 * s.US / max(longest, 1e-9)})
		}
		if m.Profile.Roofline != nil {
			v.Roof = rooflineText(m.Profile.Roofline)
			v.Roof = strings.ToUpper(v.Roof[:1]) + v.Roof[1:]
			v.plot()
		}
		views = append(views, v)
	}
	return views
}

// cards are the figures of a model that is timed.
func cards(r benchResult) []profileCard {
	var list []profileCard
	add := func(label, format string, v float64) {
		list = append(list, profileCard{label, fmt.Sprintf(format, v)})
	}
	if l := r.Latency; l != nil {
		add("p50 of "+plural(l.Runs, "run"), "%.3f ms", l.Median)
		add("p90", "%.3f ms", l.P90)
		add("p95", "%.3f ms", l.P95)
		add("p99", "%.3f ms", l.P99)
		add("shortest", "%.3f ms", l.Min)
		add("runs per second", "%.1f", l.PerSec)
	}
	if r.Peer != nil {
		add("p50 of "+r.PeerName, "%.3f ms", r.Peer.Median)
		add(r.PeerName+" to lathe", "%.2f×", *r.Ratio)
	}
	if f := r.Footprint; f != nil {
		add("from opening to the first result", "%.2f ms", f.First)
		add("peak memory", "%.1f MiB", f.Peak)
	}
	if f := r.PeerFootprint; f != nil {
		add("session of "+r.PeerName, "%.2f ms", f.Open)
		add("peak memory of "+r.PeerName, "%.1f MiB", f.Peak)
	}
	if r.Baseline != nil {
		add("p50 against the baseline", "%+.1f %%", 100*(r.Latency.Median / *r.Baseline - 1))
	}
	return list
}

// axis maps a logarithmic range to the plot.
type axis struct{ lo, hi, from, to float64 }

func (a axis) at(v float64) float64 {
	v = min(max(v, a.lo), a.hi)
	return math.Round(10*(a.from+(a.to-a.from)*math.Log(v/a.lo)/math.Log(a.hi/a.lo))) / 10
}

// decades are the powers of ten on an axis.
func (a axis) decades() []float64 {
	var list []float64
	for e := math.Ceil(math.Log10(a.lo) - 1e-9); math.Pow(10, e) <= a.hi*1.0001; e++ {
		list = append(list, math.Pow(10, e))
	}
	return list
}

// axes hold all steps, the peak, and where the fastest memory meets it.
func (v *profileView) axes() (x, y axis) {
	r := v.Roofline
	loX, hiX, loY, hiY := 0.1, 10.0, r.Peak/100, r.Peak
	for _, s := range v.Steps {
		if s.onPlot() {
			ai := float64(s.Flops) / float64(s.Bytes)
			loX, hiX, loY, hiY = min(loX, ai), max(hiX, ai), min(loY, *s.GFLOPs), max(hiY, *s.GFLOPs)
		}
	}
	for _, b := range r.Bandwidth {
		hiX = max(hiX, 3*r.Peak/b.GBps)
	}
	decade := func(v float64, round func(float64) float64) float64 { return math.Pow(10, round(math.Log10(v))) }
	return axis{decade(loX, math.Floor), decade(hiX, math.Ceil), plotLeft, plotW - plotRight},
		axis{decade(loY, math.Floor), 2 * hiY, plotH - plotBottom, plotTop}
}

// onPlot reports whether a step has a place: flops, bytes and a time.
func (s stepProfile) onPlot() bool { return s.GFLOPs != nil && s.Flops > 0 && s.Bytes > 0 }

// plot lays out flops per second over flops per byte, both logarithmic.
func (v *profileView) plot() {
	x, y := v.axes()
	for _, d := range x.decades() {
		v.XTicks = append(v.XTicks, plotDot{X: x.at(d), Y: plotH - plotBottom + 17, Text: fmt.Sprintf("%g", d)})
		v.Lines = append(v.Lines, plotLine{x.at(d), plotTop, x.at(d), plotH - plotBottom, "grid"})
	}
	for _, d := range y.decades() {
		v.YTicks = append(v.YTicks, plotDot{X: plotLeft - 7, Y: y.at(d) + 4, Text: fmt.Sprintf("%g", d)})
		v.Lines = append(v.Lines, plotLine{plotLeft, y.at(d), plotW - plotRight, y.at(d), "grid"})
	}
	v.roofs(x, y)
	missing := 0
	for _, s := range v.ByTime {
		if !s.onPlot() {
			missing++
			continue
		}
		text := fmt.Sprintf("%s %s\n%s\n%.1f µs (%.1f %%), %.1f GFLOP/s, %.1f GB/s", s.Family, s.Values, s.Kernel, s.US, s.Share, *s.GFLOPs, *s.GBs)
		if s.Node != "" {
			text += "\nnode " + s.Node
		}
		if s.Roof != nil {
			text += fmt.Sprintf("\n%.1f %% of the roofline", *s.Roof)
		}
		v.Dots = append(v.Dots, plotDot{X: x.at(float64(s.Flops) / float64(s.Bytes)), Y: y.at(*s.GFLOPs), R: math.Round(10*(3.5+math.Sqrt(s.Share)*2)) / 10, Text: text, Class: s.Class})
	}
	if missing > 0 {
		v.Missing = plural(missing, "step")
	}
	for i, f := range v.ByFamily {
		switch {
		case i < colors-1:
			v.Legend = append(v.Legend, plotDot{Text: f.Family, Class: f.Class})
		case i == colors-1:
			v.Legend = append(v.Legend, plotDot{Text: "others", Class: f.Class})
		}
	}
}

// roofs draws the peak and a slope for each level of memory: its name along the
// slope, each further up than the last, and its figure in the corner where fast
// kernels are not.
func (v *profileView) roofs(x, y axis) {
	r := v.Roofline
	fastest := x.hi
	for i, b := range r.Bandwidth {
		from, to := max(x.lo, y.lo/b.GBps), min(x.hi, r.Peak/b.GBps)
		fastest = min(fastest, to)
		class := fmt.Sprintf("memory m%d", i)
		v.Lines = append(v.Lines, plotLine{x.at(from), y.at(from * b.GBps), x.at(to), y.at(to * b.GBps), class})
		at := from * math.Pow(to/from, 0.04+0.13*float64(i))
		v.Labels = append(v.Labels, plotDot{X: x.at(at), Y: y.at(at*b.GBps) + 4, Anchor: "middle", Text: b.Level})
		row := float64(plotH - plotBottom - 18*(len(r.Bandwidth)-i))
		v.Lines = append(v.Lines, plotLine{plotW - plotRight - 205, row, plotW - plotRight - 165, row, class})
		v.Labels = append(v.Labels, plotDot{X: plotW - plotRight - 157, Y: row + 4, Anchor: "start", Text: fmt.Sprintf("%s: reads of %.0f GB/s", b.Level, b.GBps)})
	}
	v.Lines = append(v.Lines, plotLine{x.at(fastest), y.at(r.Peak), x.at(x.hi), y.at(r.Peak), "roof"})
	v.Labels = append(v.Labels, plotDot{X: plotW - plotRight - 6, Y: y.at(r.Peak) - 12, Anchor: "end", Text: fmt.Sprintf("%.0f GFLOP/s, multiply-adds of f32", r.Peak)})
}

//go:embed profilepage.html
var profileText string

var profilePage = template.Must(template.New("profile").Funcs(template.FuncMap{
	// A width for a style attribute: a number that cannot hold anything else.
	"width": func(share float64) template.CSS { return template.CSS(fmt.Sprintf("width:%.2f%%", share)) },
}).Parse(profileText))
