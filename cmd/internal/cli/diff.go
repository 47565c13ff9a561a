package cli

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

type diffOptions struct {
	*factory
	fail bool
}

func newDiffCmd(f *factory) *cobra.Command {
	o := &diffOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say in what two models differ",
		Long: `diff compares two ONNX models: header, inputs and outputs, nodes and parameters.
Nodes are matched by the values that they compute, parameters by name.`,
		Example: `  lathe diff model.onnx model.simplified.onnx
  lathe diff a.onnx b.onnx --json
  lathe diff a.onnx b.onnx --fail-if-different`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, a []string) error { return o.run(a[0], a[1]) },
	}
	cmd.Flags().BoolVar(&o.fail, "fail-if-different", false, "exit with code 6 if they differ")
	return cmd
}

// difference is one line of the comparison.
type difference struct {
	Where  string `json:"where"`  // header, input, output, node, parameter
	Name   string `json:"name"`   // of the thing
	Change string `json:"change"` // added, removed or changed
	A      string `json:"a,omitempty"`
	B      string `json:"b,omitempty"`
}

func (o *diffOptions) run(pathA, pathB string) error {
	a, err := o.loadModel(pathA)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := o.loadModel(pathB)
	if err != nil {
		return err
	}
	defer b.Close()
	list := compareModels(a, b)
	if o.json {
		if err := o.JSON(list); err != nil {
			return err
		}
	} else {
		t := o.Table("change", "where", "name", "a", "b")
		for _, d := range list {
			t.Row(d.Change, d.Where, d.Name, d.A, d.B)
		}
		if t.Len() > 0 {
			t.Print()
		}
		o.Infof("%d differences", len(list))
	}
	if o.fail && len(list) > 0 {
		return fault.New(fault.Gate, "the models differ in %d places", len(list))
	}
	return nil
}

func compareModels(a, b *onnxfile.Model) []difference {
	list := []difference{}
	head := func(name string, x, y any) {
		if x, y := fmt.Sprint(x), fmt.Sprint(y); x != y {
			list = append(list, difference{"header", name, "changed", x, y})
		}
	}
	head("ir_version", a.IRVersion, b.IRVersion)
	head("opset", summarize(a).Opsets, summarize(b).Opsets)
	head("producer", a.Producer+" "+a.ProducerVersion, b.Producer+" "+b.ProducerVersion)
	head("metadata", a.Meta, b.Meta)
	list = append(list, comparePorts("input", a.FeedInputs(), b.FeedInputs())...)
	list = append(list, comparePorts("output", a.Graph.Outputs, b.Graph.Outputs)...)
	list = append(list, compareLists("node", nodeLines(a.Graph), nodeLines(b.Graph))...)
	return append(list, compareParams(a.Graph, b.Graph)...)
}

func comparePorts(where string, a, b []*ir.Value) []difference {
	lines := func(vs []*ir.Value) []line {
		var ls []line
		for _, v := range vs {
			ls = append(ls, line{v.Name, v.Type.String()})
		}
		return ls
	}
	return compareLists(where, lines(a), lines(b))
}

// line is a named thing in the words that make it equal to another.
type line struct{ name, text string }

func compareLists(where string, a, b []line) []difference {
	var list []difference
	inB := map[string]string{}
	for _, l := range b {
		inB[l.name] = l.text
	}
	inA := map[string]bool{}
	for _, l := range a {
		inA[l.name] = true
		switch other, ok := inB[l.name]; {
		case !ok:
			list = append(list, difference{where, l.name, "removed", l.text, ""})
		case other != l.text:
			list = append(list, difference{where, l.name, "changed", l.text, other})
		}
	}
	for _, l := range b {
		if !inA[l.name] {
			list = append(list, difference{where, l.name, "added", "", l.text})
		}
	}
	return list
}

// nodeLines names each node by what it computes: names of nodes are optional
// and not unique, those of values are both.
func nodeLines(g *ir.Graph) []line {
	var ls []line
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		text := n.FullOp() + "(" + valueNames(n.Inputs) + ")"
		for _, at := range n.Attrs {
			text += " " + at.Name + "=" + attrText(at.Val)
		}
		ls = append(ls, line{valueNames(n.Outputs), text})
		return nil
	})
	return ls
}

func attrText(v any) string {
	switch x := v.(type) {
	case *tensor.Tensor:
		return x.String() + "#" + digest(x)
	case *ir.Graph:
		return fmt.Sprintf("graph of %d nodes", len(x.Nodes))
	case string:
		return fmt.Sprintf("%q", x)
	case []string:
		return fmt.Sprintf("%q", x)
	}
	if k := reflect.ValueOf(v).Kind(); k == reflect.Slice || k == reflect.Struct {
		return strings.ReplaceAll(fmt.Sprintf("%v", v), " ", ",")
	}
	return fmt.Sprint(v)
}

func compareParams(a, b *ir.Graph) []difference {
	lines := func(g *ir.Graph) []line {
		var ls []line
		for _, v := range g.Inits {
			if v.Const != nil {
				ls = append(ls, line{v.Name, v.Const.String() + "#" + digest(v.Const)})
			}
		}
		return ls
	}
	return compareLists("parameter", lines(a), lines(b))
}
