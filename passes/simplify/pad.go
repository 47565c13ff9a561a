package simplify

import (
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

// padInto moves zeros around the spatial axes into the window op that alone
// reads them. An AveragePool counts them from then on, as it did before.
func padInto(c *operands, n *ir.Node) *rewrite.Patch {
	if n.In(0) == nil {
		return nil
	}
	d := c.Producer(n.Inputs[0])
	if d == nil || d.Op != "Pad" || !official(d) || c.OnlyReader(d.Outputs[0]) != n {
		return nil
	}
	pads, ok := c.zeroPads(d)
	if !ok || len(pads) < 6 || len(pads)%2 != 0 {
		return nil
	}
	rank := len(pads) / 2
	for i, p := range pads {
		if p < 0 || i%rank < 2 && p != 0 {
			return nil
		}
	}
	if s := n.Str("auto_pad", "NOTSET"); s != "NOTSET" && s != "VALID" && s != "" {
		return nil
	}
	own := n.Ints("pads")
	if n.Str("auto_pad", "NOTSET") == "VALID" || own == nil {
		own = make([]int, 2*(rank-2))
	}
	if len(own) != 2*(rank-2) {
		return nil
	}
	sum := make([]int, len(own))
	none := true
	for i := range sum {
		none = none && own[i] == 0
		axis := 2 + i%(rank-2)
		if i < rank-2 {
			sum[i] = own[i] + pads[axis]
		} else {
			sum[i] = own[i] + pads[rank+axis]
		}
	}
	m := like(n, append([]*ir.Value{d.Inputs[0]}, n.Inputs[1:]...), n.Outputs)
	if n.Op == "AveragePool" {
		if !none || n.Int("ceil_mode", 0) != 0 || c.opset() < 7 || !c.smaller(n, sum) {
			return nil
		}
		m.SetAttr("count_include_pad", int64(1))
	}
	dropAttr(m, "auto_pad")
	m.SetAttr("pads", ir.Int64s(sum))
	return &rewrite.Patch{At: n, Nodes: []*ir.Node{m}, Why: fmt.Sprintf("the zeros of %q are its padding", d.Label())}
}

// smaller reports that padding is smaller than the window, as runtimes demand
// of pools.
func (c *operands) smaller(n *ir.Node, pads []int) bool {
	k := n.Ints("kernel_shape")
	for i, p := range pads {
		if len(k) == 0 || p >= k[i%len(k)] {
			return false
		}
	}
	return true
}

// zeroPads reads the pads of a Pad node that adds positive zeros.
func (c *operands) zeroPads(n *ir.Node) ([]int, bool) {
	if n.Str("mode", "constant") != "constant" || n.In(3) != nil || len(n.Outputs) != 1 {
		return nil, false
	}
	value := n.Float("value", 0)
	if n.In(2) != nil {
		t := c.Const(n.In(2))
		if t == nil || t.Len() != 1 || !t.DType.IsFloat() {
			return nil, false
		}
		value = t.Float(0)
	}
	if value != 0 || math.Signbit(value) {
		return nil, false
	}
	return c.intsOrAttr(n, 1, "pads")
}

func dropAttr(n *ir.Node, name string) {
	var kept []ir.Attr
	for _, a := range n.Attrs {
		if a.Name != name {
			kept = append(kept, a)
		}
	}
	n.Attrs = kept
}
