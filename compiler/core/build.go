package core

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Builder makes a core graph node by node. It infers types as it goes, shares
// equal nodes, and folds nodes of constants, so that shapes computed by a model
// are numbers before anything needs them.
//
// Its methods panic with *Error on operands that do not fit; whoever uses a
// Builder recovers with Catch.
type Builder struct {
	G *ir.Graph
	// FoldLimit is the largest number of elements that a folded node may have;
	// negative folds everything (evaluation instead of building).
	FoldLimit int
	// Origin is stamped on new nodes, for reports.
	Origin string

	shared map[string]*ir.Node
	consts map[string]*ir.Value
	serial int
	taken  map[string]bool // names in use
	ids    map[*ir.Value]int
}

// DefaultFoldLimit bounds what folding may add to a model's memory per node.
const DefaultFoldLimit = 1 << 16

// MaxEvaluated bounds the elements of one evaluated result: a few numbers in a
// model must not be able to ask for all memory.
const MaxEvaluated = 1 << 30

// NewBuilder starts an empty core graph.
func NewBuilder(name string) *Builder {
	return &Builder{
		G:         &ir.Graph{Level: ir.Core, Name: name},
		FoldLimit: DefaultFoldLimit,
		shared:    map[string]*ir.Node{},
		consts:    map[string]*ir.Value{},
		ids:       map[*ir.Value]int{},
		taken:     map[string]bool{},
	}
}

// Error is what Builder methods panic with.
type Error struct{ Msg string }

func (e *Error) Error() string { return e.Msg }

// Fail panics with an *Error.
func Fail(format string, args ...any) { panic(&Error{fmt.Sprintf(format, args...)}) }

// Catch runs f and returns the *Error or *tensor.KindError that it panicked
// with, if any.
func Catch(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Error:
			err = r
		case *tensor.KindError:
			err = r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

func (b *Builder) id(v *ir.Value) int {
	if b.FoldLimit < 0 {
		return 0
	}
	i, ok := b.ids[v]
	if !ok {
		i = len(b.ids)
		b.ids[v] = i
	}
	return i
}

// free is a name that no value has yet: models may call a constant v1, and
// bodies of two branches may use one name.
func (b *Builder) free(name string) string {
	for want := name; b.taken[name]; {
		b.serial++
		name = fmt.Sprintf("%s·%d", want, b.serial)
	}
	b.taken[name] = true
	return name
}

// Input adds a graph input.
func (b *Builder) Input(name string, d tensor.DType, shape ...int) *ir.Value {
	v := &ir.Value{Name: b.free(name), Type: ir.TensorType(d, shape...)}
	b.G.Inputs = append(b.G.Inputs, v)
	return v
}

// Output marks a graph output.
func (b *Builder) Output(v *ir.Value) { b.G.Outputs = append(b.G.Outputs, v) }

// Const makes a constant; small equal ones are shared.
func (b *Builder) Const(t *tensor.Tensor) *ir.Value { return b.NamedConst("", t) }

// NamedConst is Const with a name for reports and weight files.
func (b *Builder) NamedConst(name string, t *tensor.Tensor) *ir.Value {
	key := ""
	if t.DType != tensor.String && t.Len() <= 64 {
		key = t.String() + string(t.Bytes())
		if v := b.consts[key]; v != nil {
			return v
		}
	}
	b.serial++
	if name == "" || b.FoldLimit < 0 {
		name = fmt.Sprintf("c%d", b.serial)
	}
	v := ir.NewConst(name, t)
	if b.FoldLimit < 0 {
		return v // evaluation keeps nothing: memory is what the values in use need
	}
	if key != "" {
		b.consts[key] = v
	}
	v.Name = b.free(name)
	b.G.Inits = append(b.G.Inits, v)
	return v
}

// oneNumber is a scalar that can hold a number: strings and complex numbers come
// from models, so they are faults and not bugs.
func oneNumber(d tensor.DType) *tensor.Tensor {
	if !d.IsNumeric() && d != tensor.Bool {
		Fail("not defined for %s", d.ONNX())
	}
	return tensor.New(d)
}

// Scalar makes a rank-0 constant of an element type, rounded to it.
func (b *Builder) Scalar(d tensor.DType, v float64) *ir.Value {
	t := oneNumber(d)
	t.SetFloat(0, v)
	return b.Const(t)
}

// ScalarInt makes a rank-0 constant of an integer type.
func (b *Builder) ScalarInt(d tensor.DType, v int64) *ir.Value {
	t := oneNumber(d)
	t.SetInt(0, v)
	return b.Const(t)
}

// Ints makes a rank-1 int64 constant.
func (b *Builder) Ints(v ...int) *ir.Value { return b.Const(tensor.Of(ir.Int64s(v), len(v))) }

// Node adds a node of one output; attrs are name, value pairs.
func (b *Builder) Node(op string, in []*ir.Value, attrs ...any) *ir.Value {
	return b.NodeN(op, in, attrs...)[0]
}

// NodeN adds a node and gives its outputs.
func (b *Builder) NodeN(op string, in []*ir.Value, attrs ...any) []*ir.Value {
	n := &ir.Node{Op: op, Inputs: slices.Clone(in), Origin: b.Origin}
	var key strings.Builder
	fmt.Fprintf(&key, "%s(", op)
	allConst := true
	for i, v := range in {
		if v == nil {
			Fail("core %s: input %d is missing", op, i)
		}
		fmt.Fprintf(&key, "%d,", b.id(v))
		allConst = allConst && v.Const != nil
	}
	for i := 0; i < len(attrs); i += 2 {
		val := attrs[i+1]
		switch x := val.(type) {
		case int:
			val = int64(x)
		case []int:
			val = ir.Int64s(x)
		case tensor.DType:
			val = x.String()
		case bool:
			val = int64(0)
			if x {
				val = int64(1)
			}
		case int64, float32, string:
		default:
			panic(fmt.Sprintf("BUG: core attribute of type %T", val))
		}
		n.Attrs = append(n.Attrs, ir.Attr{Name: attrs[i].(string), Val: val})
		fmt.Fprintf(&key, ";%s=%v", attrs[i], val)
	}
	k := key.String()
	if old := b.shared[k]; old != nil && b.FoldLimit >= 0 {
		return old.Outputs
	}
	types, err := Infer(n)
	if err != nil {
		Fail("core %s: %v", op, err)
	}
	if allConst && len(in) > 0 || op == "iota" {
		if outs, ok := b.fold(n, types); ok {
			if b.FoldLimit >= 0 {
				b.shared[k] = &ir.Node{Outputs: outs}
			}
			return outs
		}
	}
	if outs, ok := b.foldViews(n, types[0]); ok {
		b.shared[k] = &ir.Node{Outputs: outs}
		return outs
	}
	for _, t := range types {
		b.serial++
		n.Outputs = append(n.Outputs, &ir.Value{Name: b.free(fmt.Sprintf("v%d", b.serial)), Type: t, Def: n})
	}
	b.G.Nodes = append(b.G.Nodes, n)
	b.shared[k] = n
	return n.Outputs
}

func (b *Builder) fold(n *ir.Node, types []ir.Type) ([]*ir.Value, bool) {
	op := n.Op
	for _, t := range types {
		s, _ := t.Static()
		if b.FoldLimit >= 0 && tensor.Numel(s) > b.FoldLimit {
			return nil, false
		}
		if tensor.Numel(s) > MaxEvaluated {
			Fail("core %s: a result of %s is beyond what is evaluated", n.Op, tensor.ShapeString(s))
		}
		// A broadcast stays a broadcast: lowering wants to see that it is constant
		// along axes. Shapes are a few integers, and must be known.
		if n := tensor.Numel(s); b.FoldLimit >= 0 && op == "broadcast" && n > 16 && (t.DType.IsFloat() || n > 64) {
			return nil, false
		}
	}
	if b.FoldLimit >= 0 && n.Op == "cast" && types[0].DType.IsFloat() && n.Inputs[0].DType().IsInteger() &&
		n.Inputs[0].DType().Bits() <= 8 && n.Inputs[0].Const.Len() > 64 {
		return nil, false // quantized weights stay quantized until somebody packs them
	}
	in := make([]*tensor.Tensor, len(n.Inputs))
	for i, v := range n.Inputs {
		in[i] = v.Const
	}
	ts, err := Eval(n, in)
	if err != nil {
		Fail("core %s: %v", n.Op, err)
	}
	outs := make([]*ir.Value, len(ts))
	for i, t := range ts {
		outs[i] = b.Const(t)
	}
	return outs, true
}

// shapeOf is the static shape of a value.
func shapeOf(v *ir.Value) []int { return v.Static() }
