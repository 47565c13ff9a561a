package simplify

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxKeyElements bounds the constants that are compared by their content.
const maxKeyElements = 64

// common merges equal nodes: the first of them stays.
func common(c *operands, rule string) int {
	k := &keys{c: c, values: map[*ir.Value]string{}}
	first := map[string]*ir.Node{}
	edits := 0
	for _, n := range slices.Clone(c.Graph.Nodes) {
		if !c.Live(n) {
			continue
		}
		key, ok := k.node(n)
		if !ok {
			continue
		}
		old := first[key]
		if old == nil || !c.Live(old) {
			first[key] = n
			continue
		}
		p := &rewrite.Patch{At: n, Why: fmt.Sprintf("%q computes the same", old.Label())}
		for i, o := range n.Outputs {
			if o != nil {
				p.Same = append(p.Same, rewrite.Swap{Old: o, New: old.Outputs[i]})
			}
		}
		if c.Apply(rule, p) {
			edits++
		}
	}
	c.Sweep(nil) // brings the node list up to date
	return edits
}

// keys names nodes by what they compute.
type keys struct {
	c      *operands
	values map[*ir.Value]string
}

func (k *keys) node(n *ir.Node) (string, bool) {
	row, _ := onnx.Lookup(n.Domain, n.Op, k.c.s.subject.Opsets[n.Domain])
	if row == nil || slices.Contains(unfoldable[:6], n.Op) || len(n.Subgraphs()) > 0 || n.Op == "Dropout" && len(n.Inputs) > 2 {
		return "", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", n.FullOp(), len(n.Outputs))
	for _, o := range n.Outputs {
		fmt.Fprintf(&b, " %v", o != nil)
	}
	for _, v := range n.Inputs {
		b.WriteString(" ")
		b.WriteString(k.value(v))
	}
	attrs := slices.Clone(n.Attrs)
	sort.SliceStable(attrs, func(i, j int) bool { return attrs[i].Name < attrs[j].Name })
	for _, a := range attrs {
		s, ok := attrKey(a.Val)
		if !ok {
			return "", false
		}
		fmt.Fprintf(&b, " %s=%s", a.Name, s)
	}
	return b.String(), true
}

// value names a value: small constants by their content.
func (k *keys) value(v *ir.Value) string {
	if v == nil {
		return "_"
	}
	s, ok := k.values[v]
	if !ok {
		s = fmt.Sprintf("#%d", len(k.values))
		if t := k.c.Const(v); t != nil && t.Len() <= maxKeyElements {
			s = tensorKey(t)
		}
		k.values[v] = s
	}
	return s
}

func tensorKey(t *tensor.Tensor) string {
	if t.DType == tensor.String {
		return fmt.Sprintf("%s%q", t, t.Strings())
	}
	return fmt.Sprintf("%s%x", t, t.Bytes())
}

func attrKey(val any) (string, bool) {
	switch v := val.(type) {
	case int64, string, []int64, []string:
		return fmt.Sprintf("%#v", v), true
	case float32:
		return fmt.Sprintf("f%x", math.Float32bits(v)), true
	case []float32:
		var b strings.Builder
		for _, f := range v {
			fmt.Fprintf(&b, "f%x,", math.Float32bits(f))
		}
		return b.String(), true
	case *tensor.Tensor:
		if v.Len() <= maxKeyElements {
			return tensorKey(v), true
		}
	}
	return "", false
}
