package cli

import (
	"html/template"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

type viewOptions struct {
	*factory
	out   string
	force bool
}

func newViewCmd(f *factory) *cobra.Command {
	o := &viewOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "view MODEL -o FILE.html",
		Short: "Draw a model as a page that needs nothing else",
		Long: `view writes one HTML file with the model's graph: nodes in layers, edges, and the
attributes and types of each node. It loads nothing from anywhere.`,
		Example: "  lathe view model.onnx -o model.html",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, a []string) error { return o.run(a[0]) },
	}
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "the page that is written")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a page that exists")
	return cmd
}

func (o *viewOptions) run(path string) error {
	if o.out == "" {
		return fault.New(fault.Usage, "no output file").Hint("give one with -o model.html")
	}
	if err := checkOutput(o.out, o.force, path); err != nil {
		return err
	}
	m, err := o.loadModel(path)
	if err != nil {
		return err
	}
	defer m.Close()
	page := layoutGraph(m.Graph)
	page.Title = symbolName(m.Path)
	page.Summary = summarize(m)
	return atomicfile.Write(o.out, func(w io.Writer) error { return viewPage.Execute(w, page) })
}

// box is a node, input or output on the page.
type box struct {
	X, Y  int
	Class string
	Op    string
	Label string
	Title string // what the pointer shows
}

// edge is a curve between boxes.
type edge struct {
	X1, Y1, X2, Y2 int
	Title          string
}

// Path is the edge's curve in SVG's words.
func (e edge) Path() template.HTMLAttr {
	mid := (e.Y1 + e.Y2) / 2
	return template.HTMLAttr("d=\"M" + itoa(e.X1) + " " + itoa(e.Y1) + "C" + itoa(e.X1) + " " + itoa(mid) + " " +
		itoa(e.X2) + " " + itoa(mid) + " " + itoa(e.X2) + " " + itoa(e.Y2) + "\"")
}

type graphPage struct {
	Title         string
	Summary       modelInfo
	Width, Height int
	Boxes         []box
	Edges         []edge
}

// The size of a box and the steps between boxes, in pixels.
const (
	boxW, boxH   = 150, 34
	stepX, stepY = 170, 70
)

// layoutGraph puts each node one layer below the lowest of those that it
// reads, and orders a layer by where its inputs are.
func layoutGraph(g *ir.Graph) *graphPage {
	p := &graphPage{}
	l := &layout{place: map[*ir.Value]int{}, page: p}
	inits := map[*ir.Value]bool{}
	for _, v := range g.Inits {
		inits[v] = true
	}
	for _, v := range g.Inputs {
		if !inits[v] {
			l.add(box{Class: "in", Op: "input", Label: v.Name, Title: v.Name + " " + v.Type.String()}, nil, []*ir.Value{v})
		}
	}
	for _, n := range g.Nodes {
		l.add(box{Class: opClass(n), Op: n.FullOp(), Label: n.Label(), Title: nodeTitle(n)}, reads(n), n.Outputs)
	}
	for _, v := range g.Outputs {
		l.add(box{Class: "out", Op: "output", Label: v.Name, Title: v.Name + " " + v.Type.String()}, []*ir.Value{v}, nil)
	}
	l.finish()
	return p
}

// reads are the values that a node takes, also through its subgraphs.
func reads(n *ir.Node) []*ir.Value {
	vs := append([]*ir.Value{}, n.Inputs...)
	for _, s := range n.Subgraphs() {
		_ = s.Walk(func(_ *ir.Graph, in *ir.Node) error {
			vs = append(vs, in.Inputs...)
			return nil
		})
	}
	return vs
}

// opClass groups ops by what they do, for colour.
func opClass(n *ir.Node) string {
	switch {
	case strings.Contains(n.Op, "Conv"), strings.Contains(n.Op, "MatMul"), n.Op == "Gemm", n.Op == "Einsum", strings.Contains(n.Op, "Attention"):
		return "heavy"
	case strings.Contains(n.Op, "Pool"), strings.HasPrefix(n.Op, "Reduce"), strings.Contains(n.Op, "Softmax"), strings.Contains(n.Op, "Normalization"):
		return "reduce"
	case strings.Contains(n.Op, "Quantize"), strings.HasPrefix(n.Op, "QLinear"):
		return "quant"
	case len(n.Subgraphs()) > 0:
		return "control"
	}
	return "plain"
}

func nodeTitle(n *ir.Node) string {
	var b strings.Builder
	b.WriteString(n.FullOp() + " " + n.Label())
	for i, v := range n.Inputs {
		if v != nil {
			b.WriteString("\n← " + itoa(i) + " " + v.Name + " " + v.Type.String())
		}
	}
	for i, v := range n.Outputs {
		if v != nil {
			b.WriteString("\n→ " + itoa(i) + " " + v.Name + " " + v.Type.String())
		}
	}
	for _, a := range n.Attrs {
		text := attrText(a.Val)
		if len(text) > 200 {
			text = text[:200] + "…"
		}
		b.WriteString("\n" + a.Name + " = " + text)
	}
	return b.String()
}

// layout places boxes as they come, in topological order.
type layout struct {
	page  *graphPage
	place map[*ir.Value]int // value → the box that gives it
	from  [][]int           // box → boxes that it reads
	via   [][]*ir.Value
	layer []int
}

func (l *layout) add(b box, in, out []*ir.Value) {
	id := len(l.page.Boxes)
	depth := 0
	var from []int
	var via []*ir.Value
	for _, v := range in {
		if src, ok := l.place[v]; v != nil && ok {
			depth = max(depth, l.layer[src]+1)
			from, via = append(from, src), append(via, v)
		}
	}
	for _, v := range out {
		if v != nil {
			l.place[v] = id
		}
	}
	l.page.Boxes = append(l.page.Boxes, b)
	l.layer = append(l.layer, depth)
	l.from, l.via = append(l.from, from), append(l.via, via)
}

func (l *layout) finish() {
	p := l.page
	used := map[int]map[int]bool{}
	for i := range p.Boxes {
		want := 0
		for _, s := range l.from[i] {
			want += p.Boxes[s].X / stepX
		}
		if n := len(l.from[i]); n > 0 {
			want /= n
		}
		row := used[l.layer[i]]
		if row == nil {
			row = map[int]bool{}
			used[l.layer[i]] = row
		}
		for row[want] {
			want++
		}
		row[want] = true
		p.Boxes[i].X, p.Boxes[i].Y = want*stepX+10, l.layer[i]*stepY+10
		p.Width = max(p.Width, p.Boxes[i].X+stepX)
		p.Height = max(p.Height, p.Boxes[i].Y+stepY)
	}
	for i := range p.Boxes {
		for k, s := range l.from[i] {
			a, b := p.Boxes[s], p.Boxes[i]
			v := l.via[i][k]
			p.Edges = append(p.Edges, edge{a.X + boxW/2, a.Y + boxH, b.X + boxW/2, b.Y, v.Name + " " + v.Type.String()})
		}
	}
}

var viewPage = template.Must(template.New("view").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body{font:13px/1.4 system-ui,sans-serif;margin:0;color:#222}header{padding:.6em 1em;background:#f4f4f4;border-bottom:1px solid #ddd}
main{overflow:auto;padding:1em}rect{fill:#fff;stroke:#999;rx:5}
.in rect,.out rect{fill:#e8e8e8}.heavy rect{fill:#cfe3f7;stroke:#47a}.reduce rect{fill:#fbe6c9;stroke:#a73}
.quant rect{fill:#e9d8f3;stroke:#74a}.control rect{fill:#f7cfcf;stroke:#a44}
text{font-size:11px;text-anchor:middle}.op{font-weight:600}.label{fill:#666;font-size:9px}
path{fill:none;stroke:#aaa}path:hover{stroke:#c33;stroke-width:2}g:hover rect{stroke:#c33;stroke-width:2}
</style>
<header><b>{{.Title}}</b> {{.Summary.Nodes}} nodes, {{.Summary.Params}} parameters{{range $d, $v := .Summary.Opsets}}, {{$d}} {{$v}}{{end}}
{{range .Summary.Ops}} · {{.Op}} {{.Count}}{{end}}</header>
<main><svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}">
{{range .Edges}}<path {{.Path}}><title>{{.Title}}</title></path>
{{end}}{{range .Boxes}}<g class="{{.Class}}" transform="translate({{.X}},{{.Y}})"><title>{{.Title}}</title><rect width="150" height="34"/><text class="op" x="75" y="14">{{printf "%.24s" .Op}}</text><text class="label" x="75" y="27">{{printf "%.28s" .Label}}</text></g>
{{end}}</svg></main>
</html>
`))
