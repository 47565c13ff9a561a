package onnx

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Options say how a graph is expanded.
type Options struct {
	// Opsets is the model's opset_import: version by domain ("" is ai.onnx).
	Opsets map[string]int
	// Dims binds named dimensions of the inputs.
	Dims map[string]int
	// Shapes overrides whole input shapes.
	Shapes map[string][]int
	// Bind makes inputs constant.
	Bind map[string]*tensor.Tensor
}

type expander struct {
	b      *core.Builder
	opsets map[string]int
	env    map[*ir.Value]*Val
	outer  *expander
	uses   map[*ir.Value]int // set in evaluation: values are dropped after their last use
	spent  int               // nodes expanded so far; counted in the outermost
}

// maxExpanded bounds the nodes that unrolling may make: three nested loops of
// a legal trip count would make a billion.
const maxExpanded = 1 << 18

// spend counts a node that is expanded.
func (x *expander) spend() *fault.Error {
	for x.outer != nil {
		x = x.outer
	}
	if x.spent++; x.spent > maxExpanded && x.b.FoldLimit >= 0 {
		return fault.New(fault.Unsupported, "unrolling loops makes more than %d nodes", maxExpanded).Hint("use the reference evaluator")
	}
	return nil
}

func domainName(d string) string {
	if d = canonical(d); d == "" {
		return "ai.onnx"
	}
	return d
}

func (x *expander) value(v *ir.Value) *Val {
	for e := x; e != nil; e = e.outer {
		if r, ok := e.env[v]; ok {
			return r
		}
	}
	if v.Const != nil {
		r := TensorVal(x.b.NamedConst(v.Name, v.Const))
		root := x
		for root.outer != nil {
			root = root.outer // a constant of a loop's body is one, however often it runs
		}
		root.env[v] = r
		return r
	}
	core.Fail("value %q is read before it is computed", v.Name)
	return nil
}

// Opset is the version of a domain, 0 if the model does not import it.
func opsetOf(opsets map[string]int, domain string) int {
	if v, ok := opsets[canonical(domain)]; ok {
		return v
	}
	if canonical(domain) == "" {
		return opsets["ai.onnx"]
	}
	return 0
}

// node expands one node into the environment.
func (x *expander) node(n *ir.Node) error {
	refuse := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Unsupported, format, args...).AtNode(n.Label(), n.FullOp())
	}
	opset := opsetOf(x.opsets, n.Domain)
	row, version := Lookup(n.Domain, n.Op, opset)
	if row == nil {
		return refuse("op %s is not known", n.FullOp()).Hint("lathe plan MODEL lists what a model needs; fold or replace the node")
	}
	if last := newest[canonical(n.Domain)]; opset > last {
		return refuse("opset %d of domain %s is newer than %d, the newest that is known", opset, domainName(n.Domain), last).
			Hint("export the model for opset %d or older", last)
	}
	if err := x.spend(); err != nil {
		return err.AtNode(n.Label(), n.FullOp())
	}
	if version == 0 {
		if opset == 0 && canonical(n.Domain) != "" {
			version, opset = row.Since[len(row.Since)-1], row.Since[len(row.Since)-1]
		} else {
			return refuse("op %s does not exist in opset %d (since %d)", n.FullOp(), opset, row.Since[0])
		}
	}
	c := &Ctx{N: n, Version: version, Opset: opset, B: x.b, x: x}
	old := x.b.Origin
	x.b.Origin = n.Label()
	defer func() { x.b.Origin = old }()
	var ref *unsupported
	err := core.Catch(func() {
		defer func() {
			if r := recover(); r != nil {
				u, ok := r.(*unsupported)
				if !ok {
					panic(r)
				}
				ref = u
			}
		}()
		row.Expand(c)
	})
	switch {
	case ref != nil && ref.hint != "":
		return refuse("%s", ref.msg).Hint("%s", ref.hint)
	case ref != nil:
		return refuse("%s is not supported", ref.msg)
	case err != nil:
		return fault.New(fault.BadModel, "%w", err).AtNode(n.Label(), n.FullOp())
	}
	for i, o := range n.Outputs {
		if o == nil {
			continue
		}
		if i >= len(c.outs) || c.outs[i] == nil {
			return refuse("output %d is not computed", i).Hint("the model asks for an optional output of %s that lathe does not produce", n.Op)
		}
		x.env[o] = c.outs[i]
	}
	if x.uses != nil {
		for _, v := range n.Inputs {
			if v == nil {
				continue
			}
			if x.uses[v]--; x.uses[v] == 0 {
				delete(x.env, v)
			}
		}
	}
	return nil
}

// body expands a subgraph; errors inside panic through to the outer node.
func (x *expander) body(g *ir.Graph, args []*Val) []*Val {
	if len(args) < len(g.Inputs) {
		core.Fail("subgraph %q takes %d inputs, gets %d", g.Name, len(g.Inputs), len(args))
	}
	in := &expander{b: x.b, opsets: x.opsets, env: map[*ir.Value]*Val{}, outer: x}
	for i, v := range g.Inputs {
		in.env[v] = args[i]
	}
	for _, n := range g.Nodes {
		if err := in.node(n); err != nil {
			if e := fault.As(err); e != nil && e.Kind == fault.Unsupported {
				panic(&unsupported{msg: fmt.Sprintf("in the subgraph: %v", err), hint: e.Help})
			}
			core.Fail("in the subgraph: %v", err)
		}
	}
	outs := make([]*Val, len(g.Outputs))
	for i, o := range g.Outputs {
		outs[i] = in.value(o)
	}
	return outs
}

// Expanded is a core graph and what became of the ONNX values.
type Expanded struct {
	Graph *ir.Graph
	// Values maps tensor values of the main graph to core values.
	Values map[*ir.Value]*ir.Value
}

// Expand turns an ONNX graph into a core graph with static shapes.
func Expand(g *ir.Graph, o Options) (*Expanded, error) {
	b := core.NewBuilder(g.Name)
	x := &expander{b: b, opsets: o.Opsets, env: map[*ir.Value]*Val{}}
	inits := map[*ir.Value]bool{}
	for _, v := range g.Inits {
		inits[v] = true
	}
	var unbound []string
	var lastErr error
	for _, v := range g.Inputs {
		if inits[v] && o.Bind[v.Name] == nil {
			continue // a default value, which nobody overrides
		}
		if t := o.Bind[v.Name]; t != nil {
			if v.Type.Form == ir.FormTensor && v.Type.DType != t.DType {
				return nil, fault.New(fault.BadModel, "input %q is %s, the bound value is %s", v.Name, v.Type, t)
			}
			x.env[v] = TensorVal(b.NamedConst(v.Name, t))
			continue
		}
		shape, missing, err := BindShape(v, o)
		if err != nil {
			lastErr = err
			continue
		}
		unbound = append(unbound, missing...)
		if len(missing) > 0 {
			continue
		}
		x.env[v] = TensorVal(b.Input(v.Name, v.Type.DType, shape...))
	}
	if lastErr != nil {
		return nil, lastErr
	}
	if len(unbound) > 0 {
		slices.Sort(unbound)
		unbound = slices.Compact(unbound)
		return nil, fault.New(fault.Usage, "the model's dimensions %s are not bound", strings.Join(unbound, ", ")).
			Hint("give each a size: --dim %s=1, or --input-shapes", strings.TrimPrefix(unbound[0], "?"))
	}
	for _, n := range g.Nodes {
		if err := x.node(n); err != nil {
			return nil, err
		}
	}
	res := &Expanded{Graph: b.G, Values: map[*ir.Value]*ir.Value{}}
	for v, r := range x.env {
		if r != nil && r.T != nil {
			res.Values[v] = r.T
		}
	}
	var outs []*ir.Value
	for _, v := range g.Outputs {
		t, err := x.output(v)
		if err != nil {
			return nil, err
		}
		outs = append(outs, t)
	}
	taken := map[*ir.Value]bool{}
	names := newNamer(b.G)
	for i, t := range outs {
		if taken[t] || t.Def == nil {
			// Each output is a value of its own: artifacts write them apart.
			t = copyOf(b, t)
		}
		taken[t] = true
		names.name(t, g.Outputs[i].Name)
		b.Output(t)
	}
	b.G.Sweep()
	if err := ir.Verify(b.G); err != nil {
		return nil, fmt.Errorf("internal error after expand: %w", err)
	}
	return res, nil
}

// output is the core value of a graph output.
func (x *expander) output(v *ir.Value) (*ir.Value, error) {
	var r *Val
	if err := core.Catch(func() { r = x.value(v) }); err != nil {
		return nil, fault.New(fault.BadModel, "%w", err)
	}
	if r == nil || r.T == nil {
		return nil, fault.New(fault.Unsupported, "output %q is a sequence or optional", v.Name).Hint("compiled models have tensor outputs; use the reference evaluator")
	}
	if r.T.DType() == tensor.String {
		return nil, fault.New(fault.Unsupported, "output %q is a string tensor", v.Name).Hint("use the reference evaluator")
	}
	return r.T, nil
}

// copyOf makes a node that copies a value (a reshape to its own shape).
func copyOf(b *core.Builder, v *ir.Value) *ir.Value {
	n := &ir.Node{Op: "reshape", Inputs: []*ir.Value{v}, Attrs: []ir.Attr{{Name: "shape", Val: ir.Int64s(core.Shape(v))}}, Origin: b.Origin}
	o := &ir.Value{Type: v.Type, Def: n}
	n.Outputs = []*ir.Value{o}
	b.G.Nodes = append(b.G.Nodes, n)
	return o
}

// namer gives outputs the names that they have in the model.
type namer struct {
	values map[string]*ir.Value
	fixed  map[*ir.Value]bool // inputs and earlier outputs: their names stay
}

func newNamer(g *ir.Graph) *namer {
	n := &namer{values: map[string]*ir.Value{}, fixed: map[*ir.Value]bool{}}
	for _, v := range g.Inputs {
		n.values[v.Name], n.fixed[v] = v, true
	}
	for _, v := range g.Inits {
		n.values[v.Name] = v
	}
	for _, d := range g.Nodes {
		for _, v := range d.Outputs {
			n.values[v.Name] = v
		}
	}
	return n
}

// name names an output. Another value that has the name gets a new one, unless
// its own must stay.
func (n *namer) name(v *ir.Value, name string) {
	o := n.values[name]
	switch {
	case o == v:
	case o != nil && n.fixed[o]:
		n.set(v, n.free(name+"·out"))
	default:
		if o != nil {
			n.set(o, n.free(name+"·in"))
		}
		n.set(v, name)
	}
	n.fixed[v] = true
}

func (n *namer) set(v *ir.Value, name string) {
	if n.values[v.Name] == v {
		delete(n.values, v.Name)
	}
	v.Name = name
	n.values[name] = v
}

func (n *namer) free(name string) string {
	for i := 2; ; i++ {
		if n.values[name] == nil {
			return name
		}
		name = fmt.Sprintf("%s%d", name, i)
	}
}

// BindShape gives the static shape of an input under the options, or the names
// of the dimensions that are still open ("input:axis" where they have none).
func BindShape(v *ir.Value, o Options) (shape []int, missing []string, err error) {
	if v.Type.Form != ir.FormTensor {
		return nil, nil, fault.New(fault.Unsupported, "input %q is of type %s", v.Name, v.Type).Hint("compiled models have tensor inputs; use the reference evaluator")
	}
	if v.Type.DType == tensor.String {
		return nil, nil, fault.New(fault.Unsupported, "input %q is a string tensor", v.Name).Hint("use the reference evaluator")
	}
	if s, ok := o.Shapes[v.Name]; ok {
		if v.Type.HasRank && len(s) != len(v.Type.Shape) {
			return nil, nil, fault.New(fault.Usage, "input %q has rank %d, the given shape %s has %d", v.Name, len(v.Type.Shape), tensor.ShapeString(s), len(s))
		}
		for i, d := range v.Type.Shape {
			if d.N >= 0 && d.N != s[i] {
				return nil, nil, fault.New(fault.Usage, "input %q is declared %s, which %s does not fit", v.Name, v.Type, tensor.ShapeString(s))
			}
		}
		return s, nil, nil
	}
	if !v.Type.HasRank {
		return nil, []string{"?" + v.Name}, nil
	}
	for i, d := range v.Type.Shape {
		switch n, ok := o.Dims[d.Param]; {
		case d.N >= 0:
			shape = append(shape, d.N)
		case d.Param != "" && ok:
			shape = append(shape, n)
		case d.Param != "":
			missing = append(missing, d.Param)
		default:
			key := fmt.Sprintf("%s:%d", v.Name, i)
			if n, ok := o.Dims[key]; ok {
				shape = append(shape, n)
			} else {
				missing = append(missing, key)
			}
		}
	}
	if _, cerr := tensor.Count(shape); len(missing) == 0 && cerr != nil {
		return nil, nil, fault.New(fault.BadModel, "input %q: %w", v.Name, cerr)
	}
	return shape, missing, nil
}

// Unknown lists the ops of a graph that have no row, sorted, with their counts.
func Unknown(g *ir.Graph, opsets map[string]int) []string {
	count := map[string]int{}
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		if o, v := Lookup(n.Domain, n.Op, opsetOf(opsets, n.Domain)); o == nil || v == 0 && canonical(n.Domain) == "" {
			count[n.FullOp()]++
		}
		return nil
	})
	var out []string
	for k, c := range count {
		out = append(out, fmt.Sprintf("%s ×%d", k, c))
	}
	sort.Strings(out)
	return out
}
