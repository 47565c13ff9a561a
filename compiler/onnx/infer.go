package onnx

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Facts are what inference knows of a graph's values. A value that it knows
// nothing of is absent: what reads unknown ops or data-dependent shapes stays
// unknown, and so does everything in subgraphs.
type Facts struct {
	// Types have known dimensions, named ones, and linear forms of named ones
	// ("2*N+1") as parameter; other dimensions are "?".
	Types map[*ir.Value]ir.Type
	// Values are integer and bool tensors that are the same for every size of
	// the free dimensions: shapes, axes and what is computed from them.
	Values map[*ir.Value]*tensor.Tensor
}

// Infer gives the types of a graph's values as far as they can be told. Dims,
// Shapes and Bind of the options narrow the inputs; dimensions that stay free
// are inferred symbolically.
func Infer(g *ir.Graph, o Options) (map[*ir.Value]ir.Type, error) {
	f, err := InferFacts(g, o, nil)
	if err != nil {
		return nil, err
	}
	return f.Types, nil
}

// InferFacts expands the graph for several sizes of its free dimensions and
// reconciles what comes out: a dimension that is the same in all probes is
// known, one that follows a free dimension is named after it or a linear form.
//
// The probes alone would take min(N, 64) for N. So a value that is computed
// from a varying shape by an op outside linearOps is distrusted, with all whose
// shape or value it may decide.
//
// variable are initializers that a caller may override: their values tell nothing.
func InferFacts(g *ir.Graph, o Options, variable map[*ir.Value]bool) (Facts, error) {
	free := freeDims(g, o)
	p := &prober{g: g, o: o, free: free, variable: variable}
	if len(free) == 0 {
		first, err := p.run(nil)
		if err != nil {
			return Facts{}, err
		}
		return first.facts(), nil
	}
	for _, sizes := range bindings(len(free)) {
		pr, err := p.run(sizes)
		if err != nil {
			return Facts{}, err
		}
		p.probes = append(p.probes, pr)
		p.sizes = append(p.sizes, sizes)
	}
	return p.reconcile(), nil
}

// freeDims lists the dimensions of the inputs that nothing binds, in order.
func freeDims(g *ir.Graph, o Options) []string {
	var free []string
	for _, v := range feeds(g) {
		if v.Type.Form != ir.FormTensor || o.Bind[v.Name] != nil {
			continue
		}
		_, missing, err := BindShape(v, o)
		if err != nil {
			continue
		}
		for _, m := range missing {
			if !strings.HasPrefix(m, "?") && !slices.Contains(free, m) {
				free = append(free, m)
			}
		}
	}
	return free
}

func feeds(g *ir.Graph) []*ir.Value {
	var vs []*ir.Value
	for _, v := range g.Inputs {
		if v.Const == nil {
			vs = append(vs, v)
		}
	}
	return vs
}

// bindings are the sizes of the probes: all ones, pairwise different small
// ones, larger ones with one dimension apart at a time, and a last one against
// which linear forms are checked.
func bindings(n int) [][]int {
	base := make([]int, n)
	for i := range base {
		base[i] = 32 * (i + 2)
	}
	row := func(f func(i int) int) []int {
		r := make([]int, n)
		for i := range r {
			r[i] = f(i)
		}
		return r
	}
	all := [][]int{base}
	for k := range n {
		all = append(all, row(func(i int) int {
			if i == k {
				return base[i] + 64
			}
			return base[i]
		}))
	}
	return append(all, row(func(i int) int { return base[i] + 32*(i+1) }), row(func(int) int { return 1 }), row(func(i int) int { return i + 2 }))
}

// probe is the environment after one expansion.
type probe struct {
	g   *ir.Graph
	env map[*ir.Value]*Val
}

type prober struct {
	g        *ir.Graph
	o        Options
	variable map[*ir.Value]bool
	free     []string
	probes   []*probe
	sizes    [][]int
}

// run expands what can be expanded; nodes that are refused leave their outputs
// unknown.
func (p *prober) run(sizes []int) (*probe, error) {
	o := p.o
	o.Dims = map[string]int{}
	for k, v := range p.o.Dims {
		o.Dims[k] = v
	}
	for i, name := range p.free {
		o.Dims[name] = sizes[i]
	}
	b := core.NewBuilder(p.g.Name)
	x := &expander{b: b, opsets: o.Opsets, env: map[*ir.Value]*Val{}}
	for _, v := range p.g.Inputs {
		if t := o.Bind[v.Name]; t != nil {
			x.env[v] = TensorVal(b.NamedConst(v.Name, t))
			continue
		}
		if v.Const != nil {
			if p.variable[v] {
				x.env[v] = TensorVal(b.Input(v.Name, v.Const.DType, v.Const.Shape...))
			}
			continue
		}
		shape, missing, err := BindShape(v, o)
		if err != nil || len(missing) > 0 || !v.Type.DType.Valid() {
			continue
		}
		x.env[v] = TensorVal(b.Input(v.Name, v.Type.DType, shape...))
	}
	for _, n := range p.g.Nodes {
		if p.readsUnknown(x, n) {
			continue
		}
		_ = x.node(n) // what is refused stays unknown
	}
	return &probe{g: p.g, env: x.env}, nil
}

func (p *prober) readsUnknown(x *expander, n *ir.Node) bool {
	for _, v := range n.Inputs {
		if v != nil && v.Const == nil && x.env[v] == nil {
			return true
		}
	}
	return false
}

// tensorAt is the core value of a tensor; nil if it is unknown or no tensor.
func (p *probe) tensorAt(v *ir.Value) *ir.Value {
	if r := p.env[v]; r != nil && r.T != nil {
		return r.T
	}
	return nil
}

// shapeElements bounds the constants that Facts hold.
const shapeElements = 1 << 12

// shapeValue is a constant that may say a shape.
func shapeValue(v *ir.Value) *tensor.Tensor {
	if v == nil || v.Const == nil || v.Const.Len() > shapeElements || !v.Const.DType.IsInteger() && v.Const.DType != tensor.Bool {
		return nil
	}
	return v.Const
}

// facts of a graph without free dimensions.
func (p *probe) facts() Facts {
	f := Facts{Types: map[*ir.Value]ir.Type{}, Values: map[*ir.Value]*tensor.Tensor{}}
	for v := range p.env {
		c := p.tensorAt(v)
		if c == nil {
			continue
		}
		f.Types[v] = c.Type
		if t := shapeValue(c); t != nil && v.Def != nil {
			f.Values[v] = t
		}
	}
	return f
}

// linearOps compute, from shapes, values that are linear in each dimension, or
// copies of such values.
var linearOps = map[string]bool{
	"Shape": true, "Size": true, "Gather": true, "Slice": true, "Concat": true, "Unsqueeze": true, "Squeeze": true, "Reshape": true,
	"Flatten": true, "Identity": true, "Cast": true, "Add": true, "Sub": true, "Mul": true, "Neg": true, "Split": true, "Transpose": true,
	"Constant": true, "GatherND": true, "GatherElements": true, "ReduceProd": true, "ReduceSum": true, "Dropout": true, "Expand": true,
	"Tile": true, "ConstantOfShape": true, "ScatterND": true, "ScatterElements": true, "Pad": true, "EyeLike": true, "SequenceAt": true,
}

// reconcile compares the probes value by value, in graph order.
func (p *prober) reconcile() Facts {
	f := Facts{Types: map[*ir.Value]ir.Type{}, Values: map[*ir.Value]*tensor.Tensor{}}
	bad := map[*ir.Value]bool{}     // may be piecewise in the free dimensions
	varying := map[*ir.Value]bool{} // constants in each probe that differ
	for _, v := range feeds(p.g) {
		if t, ok := p.typeOf(v); ok {
			f.Types[v] = t
		}
	}
	for _, n := range p.g.Nodes {
		spoilt := p.spoilt(n, bad, varying)
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			if spoilt {
				bad[v] = true
				continue
			}
			t, ok := p.typeOf(v)
			if !ok {
				continue
			}
			f.Types[v] = t
			switch c, same, all := p.valueOf(v); {
			case same:
				if c.Len() > 0 && c.Len() <= shapeElements && (c.DType.IsInteger() || c.DType == tensor.Bool) {
					f.Values[v] = c
				}
			case all:
				varying[v] = true
			}
		}
	}
	return f
}

// spoilt says whether a node's results are distrusted: it reads a distrusted
// value, or decides by a varying one in a way that is not linear.
func (p *prober) spoilt(n *ir.Node, bad, varying map[*ir.Value]bool) bool {
	vary, whole := false, false
	for _, v := range n.Inputs {
		if v == nil {
			continue
		}
		if bad[v] {
			return true
		}
		if varying[v] {
			vary = true
			whole = whole || !p.probes[0].tensorAt(v).DType().IsFloat()
		}
	}
	if len(n.Subgraphs()) > 0 {
		return true // its body may read anything
	}
	if !vary || linearOps[n.Op] && canonical(n.Domain) == "" {
		return false
	}
	for _, v := range n.Outputs {
		if v == nil {
			continue
		}
		if c := p.probes[0].tensorAt(v); c != nil && c.Const != nil {
			return true
		}
	}
	// Beside data, a float is data too; a whole number may be a size.
	return whole && !sized[n.Op]
}

// sized ops take sizes as operands and use them as they are.
var sized = map[string]bool{"Resize": true, "Upsample": true, "OneHot": true}

// typeOf reconciles a value's type over all probes.
func (p *prober) typeOf(v *ir.Value) (ir.Type, bool) {
	var shapes [][]int
	var d tensor.DType
	for _, pr := range p.probes {
		c := pr.tensorAt(v)
		if c == nil {
			return ir.Type{}, false
		}
		if len(shapes) > 0 && (len(c.Type.Shape) != len(shapes[0]) || c.DType() != d) {
			return ir.Type{}, false
		}
		d = c.DType()
		shapes = append(shapes, core.Shape(c))
	}
	t := ir.Type{Form: ir.FormTensor, DType: d, HasRank: true}
	for axis := range shapes[0] {
		t.Shape = append(t.Shape, p.dim(func(i int) int { return shapes[i][axis] }))
	}
	return t, true
}

// dim finds the form of a dimension from its size in each probe.
func (p *prober) dim(size func(probe int) int) ir.Dim {
	n := len(p.free)
	same := true
	for i := range p.probes {
		same = same && size(i) == size(0)
	}
	if same {
		if size(0) == 0 {
			return ir.Dim{N: -1} // a slice that begins behind all probes looks empty
		}
		return ir.Known(size(0))
	}
	factors := make([]int, n)
	rest := size(0)
	for k := range n {
		delta := size(1+k) - size(0)
		if delta%64 != 0 {
			return ir.Dim{N: -1}
		}
		factors[k] = delta / 64
		rest -= factors[k] * p.sizes[0][k]
	}
	for i := range p.probes {
		want := rest
		for k := range n {
			want += factors[k] * p.sizes[i][k]
		}
		if want != size(i) {
			return ir.Dim{N: -1}
		}
	}
	return ir.Dim{N: -1, Param: linear(p.free, factors, rest)}
}

// linear prints 2*N+M-1.
func linear(names []string, factors []int, rest int) string {
	var b strings.Builder
	for i, f := range factors {
		if f == 0 {
			continue
		}
		if f > 0 && b.Len() > 0 {
			b.WriteByte('+')
		}
		switch f {
		case 1:
		case -1:
			b.WriteByte('-')
		default:
			fmt.Fprintf(&b, "%d*", f)
		}
		b.WriteString(names[i])
	}
	if rest != 0 {
		fmt.Fprintf(&b, "%+d", rest)
	}
	return b.String()
}

// valueOf compares a constant over all probes: the same everywhere, or at
// least a constant in each.
func (p *prober) valueOf(v *ir.Value) (t *tensor.Tensor, same, all bool) {
	same = true
	for _, pr := range p.probes {
		c := pr.tensorAt(v)
		if c.Const == nil {
			return nil, false, false
		}
		if t == nil {
			t = c.Const
		}
		same = same && (t == c.Const || tensor.Equal(t, c.Const))
	}
	return t, same, true
}

// FreeDims lists the dimensions of a graph's inputs that the options leave
// open, sorted: names, or "input:axis" where there is none.
func FreeDims(g *ir.Graph, o Options) []string {
	free := freeDims(g, o)
	sort.Strings(free)
	return free
}
