package cli

import (
	"bytes"
	"fmt"
	"html/template"
	"path/filepath"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// programPorts gives a program's signature in the manifest's words.
func programPorts(ps []program.Port) []artifact.Port {
	list := []artifact.Port{}
	for _, p := range ps {
		shape := p.Shape
		if shape == nil {
			shape = []int{}
		}
		list = append(list, artifact.Port{Name: p.Name, Type: p.Type.ONNX(), Shape: shape})
	}
	return list
}

// stepReport is a kernel call in report.json.
type stepReport struct {
	Family string `json:"family"`
	Values string `json:"values"`
	Node   string `json:"node,omitempty"`
	Flops  int64  `json:"flops"`
	Bytes  int64  `json:"bytes"`
	Live   int    `json:"live_bytes"` // of the workspace while it runs
}

// artifactReport is report.json: what was made of the model. It has no times,
// so that the same command gives the same bytes.
type artifactReport struct {
	Model     string           `json:"model"`
	Nodes     int              `json:"nodes"`
	Ops       []opCount        `json:"ops"`
	Params    int              `json:"params"`
	MACs      int64            `json:"macs"`
	CoreNodes int              `json:"core_nodes"`
	CPU       string           `json:"cpu"`
	Inputs    []artifact.Port  `json:"inputs"`
	Outputs   []artifact.Port  `json:"outputs"`
	Kernels   int              `json:"kernels"`
	Workspace int              `json:"workspace_bytes"`
	Weights   int              `json:"weights_bytes"`
	Peak      int              `json:"peak_live_bytes"`
	Steps     []stepReport     `json:"steps"`
	Tolerance *toleranceReport `json:"tolerance,omitempty"`
	Errors    *errorReport     `json:"errors,omitempty"`
}

func makeReport(m *onnxfile.Model, l *lowered) artifactReport {
	info, p := summarize(m), l.program
	r := artifactReport{
		Model: filepath.Base(m.Path), Nodes: info.Nodes, Ops: info.Ops, Params: info.Params, MACs: countMACs(l.x.Graph),
		CoreNodes: len(l.x.Graph.Nodes), CPU: l.traits.CPU, Inputs: programPorts(p.Inputs), Outputs: programPorts(p.Outputs),
		Kernels: len(p.Kernels), Workspace: p.Workspace, Weights: p.Weights, Steps: []stepReport{},
	}
	if r.Tolerance = l.picked; l.picked == nil {
		r.Errors = l.errors // else they stand with the tolerance
	}
	live := liveBytes(p)
	for i, s := range p.Steps {
		r.Peak = max(r.Peak, live[i])
		r.Steps = append(r.Steps, stepReport{s.Kernel.Family, s.Label, s.Origin, s.Kernel.Flops, s.Kernel.Bytes, live[i]})
	}
	return r
}

// liveBytes is how much of the workspace holds values that are still needed,
// step by step: what the memory plan cannot go below.
func liveBytes(p *program.Program) []int {
	first, last := map[*program.Buf]int{}, map[*program.Buf]int{}
	for i, s := range p.Steps {
		for _, b := range s.Args {
			if b.Where != program.Arena {
				continue
			}
			b, _ = b.Whole()
			if _, seen := first[b]; !seen {
				first[b] = i
			}
			last[b] = i
		}
	}
	live := make([]int, len(p.Steps))
	for b, from := range first {
		for i := from; i <= last[b]; i++ {
			live[i] += b.Size()
		}
	}
	return live
}

// reportText are the functions of the page that spell numbers.
var reportText = template.FuncMap{
	"digits": func(n any) string {
		switch n := n.(type) {
		case int:
			return groupDigits(int64(n))
		case int64:
			return groupDigits(n)
		}
		return fmt.Sprint(n)
	},
	"size": func(n int) string { return bytesText(int64(n)) },
	"dims": tensor.ShapeString,
}

var reportPage = template.Must(template.New("report").Funcs(reportText).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Model}}</title>
<style>
body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #ddd}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.bar{background:#69c;height:.8em;min-width:1px}
</style>
<h1>{{.Model}}</h1>
<p>{{.Nodes}} nodes became {{.CoreNodes}} core nodes, {{.Kernels}} kernels and {{len .Steps}} calls for {{.CPU}}:
{{digits .MACs}} multiply-accumulates, {{digits .Params}} parameters, {{size .Weights}} of weights, {{size .Workspace}} of workspace
(at least {{size .Peak}} are live at once).</p>
<table><tr><th>input or output<th>type<th>shape
{{range .Inputs}}<tr><td>{{.Name}}<td>{{.Type}}<td>{{dims .Shape}}
{{end}}{{range .Outputs}}<tr><td>{{.Name}}<td>{{.Type}}<td>{{dims .Shape}}
{{end}}</table>
<h2>Kernel calls</h2>
<table><tr><th class="n">#<th>family<th>values<th>node<th class="n">flops<th class="n">bytes<th>live memory
{{$peak := .Peak}}{{range $i, $s := .Steps}}<tr><td class="n">{{$i}}<td>{{$s.Family}}<td>{{$s.Values}}<td>{{$s.Node}}<td class="n">{{digits $s.Flops}}<td class="n">{{digits $s.Bytes}}<td title="{{size $s.Live}}"><div class="bar" style="width:{{$s.Percent $peak}}%"></div>
{{end}}</table>
{{with .Accuracy}}<h2>Errors</h2>
<p>Against float64, as the root of the mean square of the differences over that of the values. A bound is about what a layer's own
arithmetic adds on the inputs that it had; it counts as often as the layer amplifies relative errors of its inputs.</p>
{{with $.Tolerance}}<p>{{.Summary}}</p>
{{end}}<table><tr><th>output<th class="n">error<th class="n">largest
{{range .Outputs}}<tr><td>{{.Output}}<td class="n">{{printf "%.1e" .Error.RMS}}<td class="n">{{printf "%.1e" .Error.Max}}
{{end}}</table>
<table><tr><th>layer<th>op<th>form<th>precision<th class="n">bound<th class="n">own error<th class="n">largest<th class="n">condition<th class="n">so far<th>node
{{range .Layers}}<tr><td>{{.Layer}}<td>{{.Op}}<td>{{.Form}}<td>{{.Precision}}<td class="n">{{printf "%.1e" .Bound}}<td class="n">{{printf "%.1e" .Own.RMS}}<td class="n">{{printf "%.1e" .Own.Max}}<td class="n">{{if .Condition}}{{printf "%.3g" .Condition}}{{end}}<td class="n">{{printf "%.1e" .Sofar.RMS}}<td>{{.Node}}
{{end}}</table>
{{end}}</html>
`))

// Accuracy are the errors that were measured, nil if none were.
func (r artifactReport) Accuracy() *errorReport {
	if r.Tolerance != nil {
		return r.Tolerance.Errors
	}
	return r.Errors
}

// writeJSON writes a file of JSON.
func writeJSON(path string, v any) error {
	var text bytes.Buffer
	if err := ui.WriteJSON(&text, v); err != nil {
		return err
	}
	return atomicfile.WriteBytes(path, text.Bytes())
}

// Percent is the live memory in hundredths of the peak, for the bars.
func (s stepReport) Percent(peak int) int {
	if peak == 0 {
		return 0
	}
	return 100 * s.Live / peak
}

// writeReport adds report.json and report.html to an artifact.
func writeReport(dir string, m *onnxfile.Model, l *lowered) error {
	r := makeReport(m, l)
	var text, page bytes.Buffer
	if err := ui.WriteJSON(&text, r); err != nil {
		return err
	}
	if err := reportPage.Execute(&page, r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := atomicfile.WriteBytes(filepath.Join(dir, "report.json"), text.Bytes()); err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(dir, "report.html"), page.Bytes())
}
