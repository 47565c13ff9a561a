package lower

import (
	"bytes"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Between dequantizing and quantizing again stands a function of a byte: 256
// values, which the evaluator knows. Where such a function gives bytes it is a
// table; where it gives back the byte, nothing. What moves or joins the floats
// moves bytes as well, and the greatest of bytes is that of what grows with them.

// bytewise is a value whose elements are functions of the bytes at the same
// places of an arrangement.
type bytewise struct {
	from   *arranged
	tables []*tensor.Tensor // of each source of the arrangement, in the order of the byte's bits
}

// arranged are bytes, or what moving or joining such gives.
type arranged struct {
	source *ir.Value // rebuilt; nil: what node makes of others
	node   *ir.Node
	of     []*arranged
	fill   *tensor.Tensor // the byte that a pad puts around
}

// byteValues is how many values a byte has.
const byteValues = 256

func isByte(d tensor.DType) bool { return d == tensor.U8 || d == tensor.I8 }

// tabled rebuilds a node that makes bytes of functions of bytes; nil for all
// others.
func (r *rebuild) tabled(n *ir.Node) *ir.Value {
	if len(n.Outputs) != 1 || len(n.Inputs) == 0 {
		return nil
	}
	v := n.Outputs[0]
	f := r.ofBytes(n)
	if f == nil {
		return nil
	}
	r.bytewise[v] = f
	if !isByte(v.DType()) || core.Lookup(n.Op).Class != core.Pointwise {
		return nil
	}
	tables := f.tables
	if f.from.source == nil {
		delete(r.bytewise, v) // what is made of these bytes begins with them
	}
	return r.arrange(f.from, &tables)
}

// ofBytes finds out what function of bytes a node computes; nil: none.
func (r *rebuild) ofBytes(n *ir.Node) *bytewise {
	switch class := core.Lookup(n.Op).Class; {
	case class == core.Pointwise:
		return r.pointwiseBytes(n)
	case n.Op == "concat":
		return r.joinedBytes(n)
	case class == core.Movement, n.Op == "gather", n.Op == "window_max", n.Op == "reduce_max", n.Op == "reduce_min":
	default:
		return nil
	}
	x := r.bytesOf(n.Inputs[0])
	if x == nil {
		return nil
	}
	at := &arranged{node: n, of: []*arranged{x.from}}
	switch n.Op {
	case "pad":
		if at.fill = x.filling(n.Inputs[1]); at.fill == nil {
			return nil
		}
	case "window_max":
		if !x.grows() || !covered(n) {
			return nil
		}
	case "reduce_max", "reduce_min":
		if !x.grows() || tensor.Numel(n.Inputs[0].Static()) == 0 {
			return nil
		}
	}
	return &bytewise{at, x.tables}
}

// bytesOf gives a value as a function of bytes: bytes are one of themselves.
func (r *rebuild) bytesOf(v *ir.Value) *bytewise {
	if f := r.bytewise[v]; f != nil || v.Const != nil || !isByte(v.DType()) {
		return f
	}
	t := tensor.New(v.DType(), byteValues)
	for i := range t.Bytes() {
		t.Bytes()[i] = byte(i)
	}
	f := &bytewise{&arranged{source: r.value(v)}, []*tensor.Tensor{t}}
	r.bytewise[v] = f
	return f
}

// pointwiseBytes applies an op to the tables of its operands, which must be
// functions of the same bytes, or one number.
func (r *rebuild) pointwiseBytes(n *ir.Node) *bytewise {
	var f *bytewise
	for _, v := range n.Inputs {
		if oneValue(v) != nil {
			continue
		}
		x := r.bytesOf(v)
		if x == nil || f != nil && f.from != x.from {
			return nil
		}
		f = x
	}
	if f == nil {
		return nil
	}
	out := &bytewise{from: f.from}
	for i := range f.tables {
		in := make([]*tensor.Tensor, len(n.Inputs))
		for j, v := range n.Inputs {
			if c := oneValue(v); c != nil {
				in[j] = repeated(c)
			} else {
				in[j] = r.bytewise[v].tables[i]
			}
		}
		y, err := core.Eval(n, in)
		if err != nil {
			return nil
		}
		out.tables = append(out.tables, y[0])
	}
	return out
}

// oneValue is the number that a constant has at all its places; nil: it is none.
func oneValue(v *ir.Value) *tensor.Tensor {
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	if v.Const == nil || uniform(v.Const) == nil {
		return nil
	}
	one := tensor.New(v.Const.DType)
	copy(one.Bytes(), v.Const.Bytes())
	return one
}

func repeated(one *tensor.Tensor) *tensor.Tensor {
	t := tensor.New(one.DType, byteValues)
	copy(t.Bytes(), bytes.Repeat(one.Bytes(), byteValues))
	return t
}

// onlyQuantized reports that all that is computed from a value are bytes, before
// it is joined with others: floats need not be there.
func (r *rebuild) onlyQuantized(v *ir.Value, depth int) bool {
	if isByte(v.DType()) {
		return true
	}
	if depth == 0 || r.uses[v] != len(r.readers[v]) || len(r.readers[v]) == 0 { // an output
		return false
	}
	return !slices.ContainsFunc(r.readers[v], func(n *ir.Node) bool {
		class := core.Lookup(n.Op).Class
		return n.Op == "concat" || class != core.Pointwise && class != core.Movement || !r.onlyQuantized(n.Outputs[0], depth-1)
	})
}

// joinedBytes is a concatenation of functions of bytes.
func (r *rebuild) joinedBytes(n *ir.Node) *bytewise {
	out := &bytewise{from: &arranged{node: n}}
	for _, v := range n.Inputs {
		x := r.bytesOf(v)
		if x == nil {
			return nil
		}
		out.from.of = append(out.from.of, x.from)
		out.tables = append(out.tables, x.tables...)
	}
	if !r.onlyQuantized(n.Outputs[0], 12) {
		return nil
	}
	return out
}

// filling is the byte whose function is a number; nil: there is none.
func (f *bytewise) filling(v *ir.Value) *tensor.Tensor {
	c := oneValue(v)
	if c == nil || len(f.tables) != 1 {
		return nil
	}
	t, size := f.tables[0], c.DType.Size()
	for i := range byteValues {
		if bytes.Equal(t.Bytes()[i*size:][:size], c.Bytes()) {
			fill := tensor.New(f.from.dtype())
			fill.Bytes()[0] = byte(i)
			return fill
		}
	}
	return nil
}

// dtype is the type of the bytes, which are of one source.
func (a *arranged) dtype() tensor.DType {
	for a.source == nil {
		a = a.of[0]
	}
	return a.source.DType()
}

// grows reports a function that nowhere falls with the byte.
func (f *bytewise) grows() bool {
	if len(f.tables) != 1 {
		return false
	}
	first := 0
	if f.from.dtype() == tensor.I8 {
		first = byteValues / 2
	}
	t := f.tables[0]
	for i := 1; i < byteValues; i++ {
		a, b := (first+i-1)%byteValues, (first+i)%byteValues
		if t.DType.IsFloat() && !(t.Float(a) <= t.Float(b)) || !t.DType.IsFloat() && t.Int(a) > t.Int(b) {
			return false
		}
	}
	return true
}

// covered reports that every window has an element.
func covered(n *ir.Node) bool {
	size := n.Inputs[0].Static()[2:]
	geo, err := core.ConvGeometry(n, size, n.Ints("kernel"))
	if err != nil {
		return false
	}
	for a, s := range size {
		for o := range geo.Out[a] {
			some := false
			for k := range geo.Kernel[a] {
				p := o*geo.Strides[a] + k*geo.Dilations[a] - geo.Lo[a]
				some = some || p >= 0 && p < s
			}
			if !some {
				return false
			}
		}
	}
	return true
}

// arrange applies tables to the sources of an arrangement, one after the other.
func (r *rebuild) arrange(a *arranged, tables *[]*tensor.Tensor) *ir.Value {
	if a.source != nil {
		t := (*tables)[0]
		*tables = (*tables)[1:]
		return r.lookup(t, a.source)
	}
	in := make([]*ir.Value, len(a.of))
	fill := a.fill
	if fill != nil {
		t := (*tables)[0]
		c := tensor.New(t.DType)
		c.Bytes()[0] = t.Bytes()[fill.Bytes()[0]]
		fill = c
	}
	for i, x := range a.of {
		in[i] = r.arrange(x, tables)
	}
	switch a.node.Op {
	case "pad":
		in = append(in, r.b.Const(fill))
	case "gather":
		in = append(in, r.value(a.node.Inputs[1]))
	}
	return r.moved(a.node, in)
}

// lookup is what a table of bytes has for each byte.
func (r *rebuild) lookup(t *tensor.Tensor, x *ir.Value) *ir.Value {
	same := true
	for i, b := range t.Bytes() {
		same = same && b == byte(i)
	}
	switch {
	case same && t.DType == x.DType():
		return x
	case same:
		return r.b.Node("bitcast", []*ir.Value{x}, "to", t.DType.String())
	}
	if n := x.Def; n != nil && n.Op == "transpose" {
		return r.transpose(r.lookup(t, n.Inputs[0]), n.Ints("perm"))
	}
	if y, _ := dropped(x); y != nil {
		return r.b.Reshape(r.lookup(t, y), core.Shape(x)...)
	}
	if x.DType() != tensor.U8 {
		x = r.b.Node("bitcast", []*ir.Value{x}, "to", tensor.U8.String())
	}
	return r.b.Node("gather", []*ir.Value{r.b.Const(t), x}, "axis", 0)
}

// isLookup reports a gather from a table that has an entry for every byte.
func isLookup(n *ir.Node) bool {
	return n != nil && n.Op == "gather" && n.Inputs[1].DType() == tensor.U8 && n.Inputs[0].Const != nil && slices.Equal(n.Inputs[0].Static(), []int{byteValues})
}
