package cli

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// The plot's size and margins in pixels.
const (
	plotW, plotH         = 900, 420
	plotLeft, plotBottom = 60, 40
	plotTop, plotRight   = 20, 20
)

// plotLine is a roof: a bandwidth's slope up to the peak, or a line of the grid.
type plotLine struct {
	X1, Y1, X2, Y2 float64
	Class          string
}

// plotDot is a step or a label of an axis.
type plotDot struct {
	X, Y, R float64
	Text    string
}

// profileView is one profile as the page shows it.
type profileView struct {
	Name    string
	Threads int
	Roof    string // what was measured, "" if nothing was
	*profile
	ByTime []stepProfile
	Lines  []plotLine
	Dots   []plotDot
	XTicks []plotDot
	YTicks []plotDot
	Labels []plotDot
}

func profileViews(models []benchResult) []profileView {
	var views []profileView
	for _, m := range models {
		if m.Profile == nil {
			continue
		}
		v := profileView{Name: displayName(m.Model), Threads: m.Threads, profile: m.Profile, ByTime: m.Profile.byTime()}
		if m.Profile.Roofline != nil {
			v.Roof = rooflineText(m.Profile.Roofline)
			v.plot()
		}
		views = append(views, v)
	}
	return views
}

// axis maps a logarithmic range to pixels.
type axis struct{ lo, hi, from, to float64 }

func (a axis) at(v float64) float64 {
	v = min(max(v, a.lo), a.hi)
	return math.Round(10*(a.from+(a.to-a.from)*math.Log(v/a.lo)/math.Log(a.hi/a.lo))) / 10
}

// decades are the powers of ten on an axis.
func (a axis) decades() []float64 {
	var list []float64
	for e := math.Ceil(math.Log10(a.lo)); math.Pow(10, e) <= a.hi*1.0001; e++ {
		list = append(list, math.Pow(10, e))
	}
	return list
}

// plot lays out flops per second over flops per byte, both logarithmic. Steps
// without flops are on no such plot.
func (v *profileView) plot() {
	r := v.Roofline
	x := axis{0.01, 1000, plotLeft, plotW - plotRight}
	y := axis{r.Peak / 1e4, 5 * r.Peak, plotH - plotBottom, plotTop}
	for _, d := range x.decades() {
		v.XTicks = append(v.XTicks, plotDot{X: x.at(d), Y: plotH - plotBottom + 16, Text: fmt.Sprintf("%g", d)})
		v.Lines = append(v.Lines, plotLine{x.at(d), plotTop, x.at(d), plotH - plotBottom, "grid"})
	}
	for _, d := range y.decades() {
		v.YTicks = append(v.YTicks, plotDot{X: plotLeft - 6, Y: y.at(d) + 4, Text: fmt.Sprintf("%g", d)})
		v.Lines = append(v.Lines, plotLine{plotLeft, y.at(d), plotW - plotRight, y.at(d), "grid"})
	}
	for i, b := range r.Bandwidth {
		// The slope flops/s = intensity * bandwidth, within the axes.
		from, to := max(x.lo, y.lo/b.GBps), min(x.hi, r.Peak/b.GBps)
		label := fmt.Sprintf("%s: %.0f GB/s", bytesText(int64(b.Bytes)), b.GBps)
		v.Lines = append(v.Lines, plotLine{x.at(from), y.at(from * b.GBps), x.at(to), y.at(to * b.GBps), "roof"})
		// Slopes lie close: each label stands further along than the last.
		at := min(from*math.Pow(10, 0.75*float64(i)), to)
		v.Labels = append(v.Labels, plotDot{X: x.at(at) + 4, Y: y.at(at*b.GBps) - 5, Text: label})
	}
	fastest := x.hi
	for _, b := range r.Bandwidth {
		fastest = min(fastest, r.Peak/b.GBps)
	}
	v.Lines = append(v.Lines, plotLine{x.at(fastest), y.at(r.Peak), x.at(x.hi), y.at(r.Peak), "roof"})
	v.Labels = append(v.Labels, plotDot{X: plotW - plotRight - 110, Y: y.at(r.Peak) - 5, Text: fmt.Sprintf("%.1f GFLOP/s", r.Peak)})
	for _, s := range v.ByTime {
		if s.GFLOPs == nil || s.Flops == 0 || s.Bytes == 0 {
			continue
		}
		text := strings.TrimSpace(fmt.Sprintf("%s %s: %.1f µs, %.1f GFLOP/s, %.1f GB/s", s.Family, s.Values, s.US, *s.GFLOPs, *s.GBs))
		v.Dots = append(v.Dots, plotDot{x.at(float64(s.Flops) / float64(s.Bytes)), y.at(*s.GFLOPs), math.Round(10*(3+math.Sqrt(s.Share)*2)) / 10, text})
	}
}

var profilePage = template.Must(template.New("profile").Funcs(template.FuncMap{
	// A width for a style attribute: a number that cannot hold anything else.
	"width": func(share float64) template.CSS { return template.CSS(fmt.Sprintf("width:%.2f%%", share)) },
}).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Profile</title>
<style>
body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #ddd}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.bar{background:#69c;height:.8em;min-width:1px}
td.b{width:14em}svg{max-width:100%;height:auto;font-size:11px}
.grid{stroke:#e4e4e4}.roof{stroke:#c33;stroke-width:1.5}circle{fill:#69c;fill-opacity:.55;stroke:#246}
</style>
{{range .}}<h1>{{.Name}}</h1>
<p>{{printf "%.1f" .US}} µs in {{len .Steps}} steps, the shortest of {{.Runs}} runs each; code for {{.CPU}}, threads: {{.Threads}}.</p>
{{if .Roof}}<p>{{.Roof}}. Kernels that need fewer multiplications than the operation has (winograd) can be above the roofline.</p>
<svg viewBox="0 0 900 420" width="900" height="420" role="img" aria-label="roofline">
{{range .Lines}}<line class="{{.Class}}" x1="{{.X1}}" y1="{{.Y1}}" x2="{{.X2}}" y2="{{.Y2}}"></line>
{{end}}{{range .XTicks}}<text x="{{.X}}" y="{{.Y}}" text-anchor="middle">{{.Text}}</text>
{{end}}{{range .YTicks}}<text x="{{.X}}" y="{{.Y}}" text-anchor="end">{{.Text}}</text>
{{end}}<text x="480" y="416" text-anchor="middle">flops per byte</text>
<text x="8" y="14">GFLOP/s</text>
{{range .Labels}}<text x="{{.X}}" y="{{.Y}}">{{.Text}}</text>
{{end}}{{range .Dots}}<circle cx="{{.X}}" cy="{{.Y}}" r="{{.R}}"><title>{{.Text}}</title></circle>
{{end}}</svg>
{{end}}<h2>Kernel families</h2>
<table><tr><th class="n">µs<th class="n">share %<th class="n">GFLOP/s<th class="n">GB/s<th class="n">% of roofline<th class="n">steps<th>family<th>time
{{range .Families}}<tr>{{range .Cells}}<td class="n">{{.}}{{end}}<td class="n">{{.Steps}}<td>{{.Family}}<td class="b"><div class="bar" style="{{width .Share}}"></div>
{{end}}</table>
<h2>Steps, the longest first</h2>
<table><tr><th class="n">µs<th class="n">share %<th class="n">GFLOP/s<th class="n">GB/s<th class="n">% of roofline<th class="n">step<th>family<th>kernel<th>values<th>node<th>time
{{range .ByTime}}<tr>{{range .Cells}}<td class="n">{{.}}{{end}}<td class="n">{{.Step}}<td>{{.Family}}<td>{{.Kernel}}<td>{{.Values}}<td>{{.Node}}<td class="b"><div class="bar" style="{{width .Share}}"></div>
{{end}}</table>
{{end}}</html>
`))
