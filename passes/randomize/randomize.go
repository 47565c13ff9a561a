package randomize

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Options of a run.
type Options struct {
	Seed uint64
	// InitsAreInputs also lists new initializers among the graph's inputs, as
	// IR versions before 4 demand.
	InitsAreInputs bool
}

// Report says what was replaced.
type Report struct {
	Weights int // tensors that got He-normal values
	Vectors int // biases, and scales and statistics of normalizations
	Kept    int // float constants whose use tells no role
	Values  int // numbers in all that were replaced
}

// role is what a constant does in the node that reads it.
type role struct {
	fanIn int     // of a weight; 0 for a vector
	mean  float64 // of a vector
	std   float64
	abs   bool // variances must be positive
}

// Weights replaces the weights of a graph and of its subgraphs, in place.
// Weights that are made by ConstantOfShape become initializers.
func Weights(g *ir.Graph, o Options) (Report, error) {
	var rep Report
	uses := consumers(g)
	for _, v := range g.Inits {
		if v.Const == nil || !v.Const.DType.IsFloat() {
			continue
		}
		r, ok := roleOf(v, uses, v.Const.Shape)
		if !ok {
			rep.Kept++
			continue
		}
		v.Const = draw(v.Const.DType, v.Const.Shape, r, o.Seed, v.Name)
		rep.count(r, v.Const)
	}
	if err := made(g, uses, o, &rep); err != nil {
		return rep, err
	}
	for _, n := range g.Nodes {
		for _, s := range n.Subgraphs() {
			sub, err := Weights(s, Options{Seed: o.Seed})
			if err != nil {
				return rep, err
			}
			rep.Weights, rep.Vectors, rep.Kept, rep.Values = rep.Weights+sub.Weights, rep.Vectors+sub.Vectors, rep.Kept+sub.Kept, rep.Values+sub.Values
		}
	}
	return rep, nil
}

// made turns ConstantOfShape nodes with a weight's role into initializers.
func made(g *ir.Graph, uses map[*ir.Value][]use, o Options, rep *Report) error {
	kept := g.Nodes[:0:0]
	for _, n := range g.Nodes {
		v, shape, d, ok := constantOfShape(n)
		var r role
		if ok {
			r, ok = roleOf(v, uses, shape)
		}
		if !ok {
			kept = append(kept, n)
			continue
		}
		if _, err := tensor.Count(shape); err != nil {
			return fault.New(fault.BadModel, "%w", err).AtNode(n.Label(), n.FullOp())
		}
		v.Const, v.Def = draw(d, shape, r, o.Seed, v.Name), nil
		v.Type = ir.TensorType(d, shape...)
		g.Inits = append(g.Inits, v)
		if o.InitsAreInputs {
			g.Inputs = append(g.Inputs, v)
		}
		g.Infos = slices.DeleteFunc(g.Infos, func(w *ir.Value) bool { return w == v })
		rep.count(r, v.Const)
	}
	g.Nodes = kept
	dropUnread(g)
	return nil
}

// constantOfShape gives what a ConstantOfShape node of floats makes.
func constantOfShape(n *ir.Node) (v *ir.Value, shape []int, d tensor.DType, ok bool) {
	if n.Op != "ConstantOfShape" || n.Domain != "" && n.Domain != "ai.onnx" || n.In(0) == nil || n.In(0).Const == nil || len(n.Outputs) != 1 {
		return nil, nil, 0, false
	}
	d = tensor.F32
	if t := n.TensorAttr("value"); t != nil {
		d = t.DType
	}
	shape, err := n.In(0).Const.Ints()
	return n.Outputs[0], shape, d, err == nil && d.IsFloat()
}

// dropUnread removes the shapes that the replaced nodes read.
func dropUnread(g *ir.Graph) {
	uses := g.Uses()
	unread := func(v *ir.Value) bool { return v.Const != nil && v.Const.DType == tensor.I64 && uses[v] == 0 }
	g.Inits = slices.DeleteFunc(g.Inits, unread)
	g.Inputs = slices.DeleteFunc(g.Inputs, unread)
}

func (rep *Report) count(r role, t *tensor.Tensor) {
	rep.Values += t.Len()
	if r.fanIn > 0 {
		rep.Weights++
	} else {
		rep.Vectors++
	}
}

// use is one place where a value is read.
type use struct {
	node  *ir.Node
	input int
}

func consumers(g *ir.Graph) map[*ir.Value][]use {
	m := map[*ir.Value][]use{}
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		for i, v := range n.Inputs {
			if v != nil {
				m[v] = append(m[v], use{n, i})
			}
		}
		return nil
	})
	return m
}

// through are ops that move a weight without changing its values.
var through = []string{"Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity", "Flatten", "Cast", "Expand"}

// roleOf finds a constant's role from its first telling use.
func roleOf(v *ir.Value, uses map[*ir.Value][]use, shape []int) (role, bool) {
	for _, u := range uses[v] {
		if u.input == 0 && slices.Contains(through, u.node.Op) && len(u.node.Outputs) > 0 && u.node.Outputs[0] != nil {
			if r, ok := roleOf(u.node.Outputs[0], uses, shape); ok {
				return r, true
			}
			continue
		}
		if r, ok := roleAt(u, shape); ok {
			return r, true
		}
	}
	return role{}, false
}

// vectorRoles are the roles of 1-d operands by op and input.
var vectorRoles = map[string]map[int]role{
	"BatchNormalization":    {1: {mean: 1, std: 0.1}, 2: {std: 0.1}, 3: {std: 0.1}, 4: {mean: 1, std: 0.1, abs: true}},
	"InstanceNormalization": {1: {mean: 1, std: 0.1}, 2: {std: 0.1}},
	"LayerNormalization":    {1: {mean: 1, std: 0.1}, 2: {std: 0.1}},
	"GroupNormalization":    {1: {mean: 1, std: 0.1}, 2: {std: 0.1}},
	"Conv":                  {2: {std: 0.1}},
	"ConvTranspose":         {2: {std: 0.1}},
	"Gemm":                  {2: {std: 0.1}},
	"PRelu":                 {1: {mean: 0.25, std: 0.05}},
	"LSTM":                  {3: {std: 0.1}, 7: {std: 0.1}},
	"GRU":                   {3: {std: 0.1}},
	"RNN":                   {3: {std: 0.1}},
}

func roleAt(u use, shape []int) (role, bool) {
	n := tensor.Numel(shape)
	if r, ok := vectorRoles[u.node.Op][u.input]; ok {
		return r, true
	}
	fan := 0
	rank := len(shape)
	switch op := u.node.Op; {
	case op == "Conv" && u.input == 1 && rank > 1:
		fan = tensor.Numel(shape[1:])
	case op == "ConvTranspose" && u.input == 1 && rank > 1:
		fan = shape[0] * tensor.Numel(shape[2:]) / max(1, u.node.Int("group", 1))
	case op == "Gemm" && u.input == 1 && rank == 2:
		fan = shape[0]
		if u.node.Int("transB", 0) != 0 {
			fan = shape[1]
		}
	case op == "MatMul" && u.input == 1 && rank > 1:
		fan = shape[rank-2]
	case op == "MatMul" && u.input == 0 && rank > 1:
		fan = shape[rank-1]
	case (op == "LSTM" || op == "GRU" || op == "RNN") && (u.input == 1 || u.input == 2) && rank == 3:
		fan = shape[2]
	case op == "Gather" && u.input == 0 && rank == 2:
		fan = shape[1]
	case op == "Mul" && n > 1:
		return role{mean: 1, std: 0.1}, true
	case (op == "Add" || op == "Sub" || op == "Sum") && n > 1:
		return role{std: 0.1}, true
	}
	return role{fanIn: fan}, fan > 0
}

// draw makes the values. Each tensor has its own stream, named after it, so
// that a change elsewhere in the model leaves it as it is.
func draw(d tensor.DType, shape []int, r role, seed uint64, name string) *tensor.Tensor {
	h := fnv.New64a()
	h.Write([]byte(strings.ToValidUTF8(name, "?")))
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	std := r.std
	if r.fanIn > 0 {
		std = math.Sqrt(2 / float64(r.fanIn)) // He et al. 2015
	}
	t := tensor.New(d, shape...)
	for i := range t.Len() {
		v := r.mean + std*rng.NormFloat64()
		if r.abs {
			v = math.Abs(v)
		}
		t.SetFloat(i, v)
	}
	return t
}
