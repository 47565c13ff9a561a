package cli

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

type inspectOptions struct {
	*factory
	model  string
	shapes shapeFlags
	nodes  bool
	text   bool
	core   bool
}

func newInspectCmd(f *factory) *cobra.Command {
	o := &inspectOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "inspect MODEL|ARTIFACT",
		Short: "Say what is in a model or an artifact",
		Long: `inspect reads a model and prints what is in it. Where all shapes are known, or
are made known by --dim or --input-shapes, it also counts multiply-accumulates.
Of an artifact it says what it takes and gives, and for which CPUs it has code.`,
		Example: `  lathe inspect model.onnx
  lathe inspect model.onnx --dim N=1 --json
  lathe inspect model.onnx --nodes
  lathe inspect model.onnx --text > model.txt
  lathe inspect model.onnx --core --dim N=1
  lathe inspect artifact/`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			o.model = a[0]
			return o.run()
		},
	}
	cmd.Flags().BoolVar(&o.nodes, "nodes", false, "list every node")
	cmd.Flags().BoolVar(&o.text, "text", false, "print the graph's text form")
	cmd.Flags().BoolVar(&o.core, "core", false, "print the text form of the core graph that it expands to")
	o.shapes.register(cmd)
	return cmd
}

// portInfo is an input or output in --json.
type portInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []any  `json:"shape"` // numbers and names
}

type opCount struct {
	Op    string `json:"op"`
	Count int    `json:"count"`
}

// modelInfo is what `lathe inspect --json` prints.
type modelInfo struct {
	File       string            `json:"file"`
	Bytes      int64             `json:"bytes"`
	IRVersion  int64             `json:"ir_version"`
	Opsets     map[string]int    `json:"opset"`
	Producer   string            `json:"producer,omitempty"`
	Doc        string            `json:"doc,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Inputs     []portInfo        `json:"inputs"`
	Outputs    []portInfo        `json:"outputs"`
	Nodes      int               `json:"nodes"`
	Ops        []opCount         `json:"ops"`
	Functions  []string          `json:"functions,omitempty"`
	Params     int               `json:"params"`
	ParamBytes int               `json:"param_bytes"`
	ParamTypes map[string]int    `json:"param_types"`
	MACs       *int64            `json:"macs,omitempty"`
	CoreNodes  int               `json:"core_nodes,omitempty"`
	Unknown    []string          `json:"unknown_ops,omitempty"`
	Refused    string            `json:"refused,omitempty"` // why no core graph was made
}

func (o *inspectOptions) run() error {
	if isArtifact(o.model) {
		return o.artifact()
	}
	m, opt, err := o.loadShaped(o.model, &o.shapes)
	if err != nil {
		return err
	}
	defer m.Close()
	if o.text {
		_, err := fmt.Fprint(o.Out, ir.Print(m.Graph))
		return err
	}
	x, expandErr := onnx.Expand(m.Graph, opt)
	if o.core {
		if expandErr != nil {
			return expandErr
		}
		_, err := fmt.Fprint(o.Out, ir.Print(x.Graph))
		return err
	}
	info := summarize(m)
	switch {
	case expandErr == nil:
		macs := countMACs(x.Graph)
		info.MACs, info.CoreNodes = &macs, len(x.Graph.Nodes)
	case fault.Is(expandErr, fault.Internal):
		return expandErr
	default:
		info.Refused = expandErr.Error()
	}
	if o.json {
		return o.JSON(info)
	}
	o.print(m, info)
	return nil
}

func summarize(m *onnxfile.Model) modelInfo {
	info := modelInfo{
		File: m.Path, IRVersion: m.IRVersion, Opsets: map[string]int{}, Doc: m.Doc, Metadata: map[string]string{},
		Producer: strings.TrimSpace(m.Producer + " " + m.ProducerVersion), ParamTypes: map[string]int{},
		Inputs: ports(m.FeedInputs()), Outputs: ports(m.Graph.Outputs),
		Unknown: onnx.Unknown(m.Graph, conformance.Opsets(m)),
	}
	if st, err := os.Stat(m.Path); err == nil {
		info.Bytes = st.Size()
	}
	for _, s := range m.Opsets {
		d := s.Domain
		if d == "" {
			d = "ai.onnx"
		}
		info.Opsets[d] = int(s.Version)
	}
	for _, kv := range m.Meta {
		info.Metadata[kv.Key] = kv.Value
	}
	for _, fn := range m.Functions {
		info.Functions = append(info.Functions, fn.Domain+"."+fn.Name)
	}
	count := map[string]int{}
	_ = m.Graph.Walk(func(_ *ir.Graph, n *ir.Node) error {
		count[n.FullOp()]++
		info.Nodes++
		return nil
	})
	info.Ops = sortedCounts(count)
	eachParam(m.Graph, func(t *tensor.Tensor) {
		info.Params += t.Len()
		info.ParamBytes += len(t.Bytes())
		info.ParamTypes[t.DType.ONNX()] += t.Len()
	})
	return info
}

// eachParam visits the initializers, also of subgraphs, and the tensors of
// Constant nodes.
func eachParam(g *ir.Graph, f func(*tensor.Tensor)) {
	for _, v := range g.Inits {
		if v.Const != nil {
			f(v.Const)
		}
	}
	for _, n := range g.Nodes {
		if t := n.TensorAttr("value"); t != nil && n.Op == "Constant" {
			f(t)
		}
		for _, s := range n.Subgraphs() {
			eachParam(s, f)
		}
	}
}

func sortedCounts(count map[string]int) []opCount {
	list := []opCount{}
	for op, n := range count {
		list = append(list, opCount{op, n})
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Count != list[j].Count {
			return list[i].Count > list[j].Count
		}
		return list[i].Op < list[j].Op
	})
	return list
}

func ports(vs []*ir.Value) []portInfo {
	list := []portInfo{}
	for _, v := range vs {
		p := portInfo{Name: v.Name, DType: v.Type.DType.ONNX(), Shape: []any{}}
		if v.Type.Form != ir.FormTensor {
			p.DType = v.Type.String()
		}
		for _, d := range v.Type.Shape {
			switch {
			case d.N >= 0:
				p.Shape = append(p.Shape, d.N)
			case d.Param != "":
				p.Shape = append(p.Shape, d.Param)
			default:
				p.Shape = append(p.Shape, "?")
			}
		}
		list = append(list, p)
	}
	return list
}

func (o *inspectOptions) print(m *onnxfile.Model, info modelInfo) {
	t := o.Table("what", "value")
	t.Row("file", info.File)
	t.Row("size", bytesText(info.Bytes))
	var opsets []string
	for _, d := range sortedKeys(info.Opsets) {
		opsets = append(opsets, d+" "+itoa(info.Opsets[d]))
	}
	t.Row("format", fmt.Sprintf("IR version %d, opset %s", info.IRVersion, strings.Join(opsets, ", ")))
	if info.Producer != "" {
		t.Row("producer", info.Producer)
	}
	for _, k := range sortedKeys(info.Metadata) {
		t.Row("metadata "+k, info.Metadata[k])
	}
	for _, p := range m.FeedInputs() {
		t.Row("input", p.Name+" "+p.Type.String())
	}
	for _, p := range m.Graph.Outputs {
		t.Row("output", p.Name+" "+p.Type.String())
	}
	var ops, types []string
	for _, c := range info.Ops {
		ops = append(ops, fmt.Sprintf("%s %d", c.Op, c.Count))
	}
	for _, d := range sortedKeys(info.ParamTypes) {
		types = append(types, d+" "+groupDigits(int64(info.ParamTypes[d])))
	}
	t.Row("nodes", itoa(info.Nodes)+": "+strings.Join(ops, ", "))
	t.Row("parameters", groupDigits(int64(info.Params))+" ("+strings.Join(types, ", ")+"), "+bytesText(int64(info.ParamBytes)))
	if info.MACs != nil {
		t.Row("work", groupDigits(*info.MACs)+" multiply-accumulates, "+itoa(info.CoreNodes)+" core nodes")
	}
	for _, fn := range info.Functions {
		t.Row("function", fn)
	}
	for _, u := range info.Unknown {
		t.Row("unknown op", u)
	}
	if info.Refused != "" {
		t.Row("no core graph", info.Refused)
	}
	t.Print()
	if o.nodes {
		o.Printf("\n")
		nt := o.Table("node", "op", "inputs", "outputs")
		_ = m.Graph.Walk(func(_ *ir.Graph, n *ir.Node) error {
			nt.Row(n.Label(), n.FullOp(), valueNames(n.Inputs), valueNames(n.Outputs))
			return nil
		})
		nt.Print()
	}
}

func valueNames(vs []*ir.Value) string {
	var names []string
	for _, v := range vs {
		if v != nil {
			names = append(names, v.Name)
		}
	}
	return strings.Join(names, ", ")
}

func sortedKeys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	sort.Strings(list)
	return list
}

// groupDigits prints 13970301 as 13,970,301.
func groupDigits(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText prints a size in the unit that keeps it short.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
