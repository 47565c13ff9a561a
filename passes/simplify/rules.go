package simplify

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

// rule is one row: the ops of ONNX's own domain at which it looks (none: every
// node), and what it builds. A rule over the whole graph has whole instead.
type rule struct {
	Name  string
	Doc   string
	ops   []string
	build func(c *operands, n *ir.Node) *rewrite.Patch
	whole func(c *operands, rule string) int
}

// table is in the order in which the rules are offered a node.
var table = []rule{
	{Name: "constant", Doc: "a Constant node is an initializer", ops: []string{"Constant"}, build: constantNode},
	{Name: "shape-value", Doc: "what follows from shapes alone is a constant", build: shapeValue},
	{Name: "fold", Doc: "a node of constants is a constant, within the memory limits", build: fold},
	{Name: "branch", Doc: "an If with a constant condition is one of its branches", ops: []string{"If"}, build: branch},
	{Name: "identity", Doc: "Identity, and Concat, Sum, Max, Min, Mean of one", ops: []string{"Identity", "Concat", "Sum", "Max", "Min", "Mean"}, build: identity},
	{Name: "dropout", Doc: "Dropout does nothing in inference", ops: []string{"Dropout"}, build: dropout},
	{Name: "cast", Doc: "a Cast to the type that a value has", ops: []string{"Cast"}, build: sameCast},
	{Name: "neutral", Doc: "x·1, x/1, x-0, x+(-0), x^1 and integer x+0 are x, bit for bit", ops: []string{"Add", "Sub", "Mul", "Div", "Pow"}, build: neutral},
	{Name: "same-shape", Doc: "views, Expand, Tile, Slice and Pad that leave a shape as it is", ops: []string{"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Pad"}, build: sameShape},
	{Name: "same-order", Doc: "a Transpose that moves no axis, or only axes of size 1", ops: []string{"Transpose"}, build: sameOrder},
	{Name: "transpose-merge", Doc: "two Transposes, also with elementwise ops between them, are one", ops: []string{"Transpose"}, build: transposeMerge},
	{Name: "transpose-join", Doc: "operands that are transposed alike are transposed once, behind the op", ops: []string{"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Concat"}, build: transposeJoin},
	{Name: "view-merge", Doc: "a view of a view is one Reshape", ops: views, build: viewMerge},
	{Name: "static-reshape", Doc: "a Reshape to a computed shape with at most one open dimension", ops: []string{"Reshape"}, build: staticReshape},
	{Name: "pad", Doc: "zeros around an image are the padding of the Conv or AveragePool that reads it", ops: []string{"Conv", "AveragePool"}, build: padInto},
	{Name: "batch-norm", Doc: "a BatchNormalization behind a Conv, ConvTranspose or Gemm is in its weights", ops: []string{"BatchNormalization"}, build: batchNorm},
	{Name: "scale", Doc: "a Mul or Div per channel behind a Conv, ConvTranspose or Gemm is in its weights", ops: []string{"Mul", "Div"}, build: scaleInto},
	{Name: "bias", Doc: "an Add or Sub per channel behind a Conv, ConvTranspose or Gemm is its bias", ops: []string{"Add", "Sub"}, build: biasInto},
	{Name: "common", Doc: "equal nodes on equal operands are one", whole: common},
}

// Rules lists the rules' names and what each says, in order.
func Rules() (names, docs []string) {
	for _, r := range table {
		names, docs = append(names, r.Name), append(docs, r.Doc)
	}
	return names, docs
}

// chosen applies Only and Skip.
func chosen(o Options) ([]rule, error) {
	names, _ := Rules()
	for _, n := range slices.Concat(o.Only, o.Skip) {
		if !slices.Contains(names, n) {
			return nil, fault.New(fault.Usage, "no rule is called %q", n).Hint("the rules are %v", names)
		}
	}
	var list []rule
	for _, r := range table {
		if (len(o.Only) == 0 || slices.Contains(o.Only, r.Name)) && !slices.Contains(o.Skip, r.Name) {
			list = append(list, r)
		}
	}
	return list, nil
}

// bound makes a rewrite.Rule of a row.
func (r *rule) bound(c *operands) rewrite.Rule {
	return rewrite.Rule{
		Name: r.Name, Doc: r.Doc,
		Match: func(_ *rewrite.Editor, n *ir.Node) bool {
			return r.ops == nil || official(n) && slices.Contains(r.ops, n.Op)
		},
		Build: func(_ *rewrite.Editor, n *ir.Node) *rewrite.Patch { return r.build(c, n) },
	}
}

// official reports an op of ONNX's own domain.
func official(n *ir.Node) bool { return n.Domain == "" || n.Domain == "ai.onnx" }
