package lower

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// kb builds one kernel.
type kb struct {
	l      *lowerer
	label  string
	origin string
	params []*loop.Buffer
	args   []*program.Buf
	locals []*loop.Buffer
	byBuf  map[*program.Buf]*loop.Buffer
	over   map[*ir.Value]func(idx []*loop.Expr) *loop.Expr // values that the kernel holds
	memo   map[string]*loop.Expr
	vars   int
}

func (l *lowerer) kernelFor(v *ir.Value) *kb {
	k := &kb{l: l, label: v.Name, byBuf: map[*program.Buf]*loop.Buffer{}, over: map[*ir.Value]func([]*loop.Expr) *loop.Expr{}, memo: map[string]*loop.Expr{}}
	if v.Def != nil {
		k.origin = v.Def.Origin
	}
	return k
}

// param makes a program buffer a parameter of the kernel. Parameters are named
// by position, so that equal kernels have equal texts.
func (k *kb) param(b *program.Buf, out bool) *loop.Buffer {
	if p := k.byBuf[b]; p != nil {
		p.Out = p.Out || out
		return p
	}
	p := &loop.Buffer{Name: fmt.Sprintf("arg%d", len(k.params)), Type: b.Type, Len: b.Len, Out: out}
	k.byBuf[b] = p
	k.params = append(k.params, p)
	k.args = append(k.args, b)
	return p
}

func (k *kb) local(name string, d tensor.DType, n int) *loop.Buffer {
	k.vars++
	b := &loop.Buffer{Name: fmt.Sprintf("%s%d", name, k.vars), Type: d, Len: n, Space: loop.Local}
	k.locals = append(k.locals, b)
	return b
}

func (k *kb) reg(name string, d tensor.DType) *loop.Reg {
	return &loop.Reg{Name: k.named(name), Type: d}
}

// constPlace puts a constant into the weights as it is.
func (l *lowerer) constPlace(v *ir.Value, t *tensor.Tensor) *place {
	if p := l.places[v]; p != nil {
		return p
	}
	n := t.Len()
	if len(t.Shape) == 4 && t.Shape[1] == n && t.DType.Size() > 0 { // lanes beyond the last channel may be read, and are then dropped
		n = (n + l.o.Lanes - 1) / l.o.Lanes * l.o.Lanes
	}
	p := &place{&program.Buf{Name: v.Name, Where: program.Const, Type: t.DType, Len: n}, plain(t.Shape)}
	l.p.Consts = append(l.p.Consts, &program.Constant{Buf: p.buf, Fill: func() ([]byte, error) {
		b := t.Bytes()
		return append(slices.Clone(b), make([]byte, n*t.DType.Size()-len(b))...), nil
	}})
	l.places[v] = p
	return p
}

// uniform gives the one value that all elements of a constant have.
func uniform(t *tensor.Tensor) *loop.Expr {
	n := t.Len()
	if n == 0 || n > 4096 && t.DType.Size() == 0 {
		return nil
	}
	s := t.DType.Size()
	if s == 0 {
		return nil
	}
	b := t.Bytes()
	for i := s; i < len(b); i++ {
		if b[i] != b[i-s] {
			return nil
		}
	}
	return loop.Of(t, 0)
}

// access is the value v at an index, as an expression.
func (k *kb) access(v *ir.Value, idx []*loop.Expr) *loop.Expr {
	if f := k.over[v]; f != nil {
		return f(idx)
	}
	key := v.Name
	for _, e := range idx {
		key += "|" + e.Key()
	}
	if e := k.memo[key]; e != nil {
		return e
	}
	e := k.read(v, idx)
	k.memo[key] = e
	return e
}

func (k *kb) read(v *ir.Value, idx []*loop.Expr) *loop.Expr {
	if v.Const != nil {
		if e := uniform(v.Const); e != nil {
			return e
		}
		if !storable(v.Const.DType) {
			core.Fail("constant %q of type %s at run time is not supported by compiled targets", v.Name, v.Const.DType.ONNX())
		}
		p := k.l.constPlace(v, v.Const)
		return loop.At(k.param(p.buf, false), p.layout.offset(idx))
	}
	if p := k.l.places[v]; p != nil {
		return p.layout.loaded(v.DType(), loop.At(k.param(p.buf, false), p.layout.offset(idx)))
	}
	n := v.Def
	switch core.Lookup(n.Op).Class {
	case core.Pointwise:
		if n.Op == "iota" {
			return fromIndex(v.DType(), idx[n.Int("axis", 0)])
		}
		args := make([]*loop.Expr, len(n.Inputs))
		for i, x := range n.Inputs {
			args[i] = k.access(x, idx)
		}
		if n.Op == "exp" && notPositive(n.Inputs[0]) {
			c := loop.Compute(v.DType())
			return loop.To(v.DType(), loop.Fn("expneg", loop.To(c, args[0])))
		}
		return scalar(n, args)
	case core.Movement:
		return k.move(n, idx)
	case core.Indexed:
		return k.gather(n, idx)
	}
	panic(fmt.Sprintf("BUG: %s (core %s) is read but not in memory", v.Name, n.Op))
}

func fromIndex(d tensor.DType, e *loop.Expr) *loop.Expr { return loop.To(d, e) }

// move gives the source element of a movement op.
func (k *kb) move(n *ir.Node, idx []*loop.Expr) *loop.Expr {
	x := n.Inputs[0]
	in := x.Static()
	src := make([]*loop.Expr, len(in))
	switch n.Op {
	case "reshape":
		return k.access(x, reindex(idx, n.Outputs[0].Static(), in))
	case "transpose":
		for i, p := range n.Ints("perm") {
			src[p] = idx[i]
		}
	case "broadcast":
		for i, d := range in {
			if src[i] = idx[i]; d == 1 {
				src[i] = loop.Int(0)
			}
		}
	case "slice":
		starts, steps := n.Ints("starts"), n.Ints("steps")
		for i := range in {
			src[i] = loop.Add(loop.Mul(idx[i], steps[i]), loop.Int(starts[i]))
		}
	case "pad":
		inside := loop.True()
		for i, lo := range n.Ints("lo") {
			src[i] = loop.Sub(idx[i], loop.Int(lo))
			inside = loop.And(inside, loop.Within(src[i], 0, in[i]))
		}
		if inside.Kind == loop.Const && inside.I == 0 || tensor.Numel(in) == 0 {
			return k.access(n.Inputs[1], nil)
		}
		return loop.If(inside, k.access(x, src), k.access(n.Inputs[1], nil))
	case "concat":
		return k.concat(n, idx)
	}
	return k.access(x, src)
}

// reindex turns an index of one shape into that of another with the same
// elements, axis by axis where the shapes agree: products of equal prefixes
// and suffixes need no arithmetic.
func reindex(idx []*loop.Expr, from, to []int) []*loop.Expr {
	out := make([]*loop.Expr, 0, len(to))
	i, j := 0, 0
	for i < len(from) || j < len(to) {
		i0, j0 := i, j
		a, b := 1, 1
		if i < len(from) {
			a = from[i]
			i++
		}
		if j < len(to) {
			b = to[j]
			j++
		}
		for a != b {
			if a < b && i < len(from) {
				a *= from[i]
				i++
			} else if j < len(to) {
				b *= to[j]
				j++
			} else {
				break
			}
		}
		out = append(out, loop.Unflatten(loop.Flatten(idx[i0:i], from[i0:i]), to[j0:j])...)
	}
	return out
}

func (k *kb) concat(n *ir.Node, idx []*loop.Expr) *loop.Expr {
	axis := n.Int("axis", 0)
	at := 0
	var e *loop.Expr
	type part struct {
		v        *ir.Value
		from, to int
	}
	var parts []part
	for _, x := range n.Inputs {
		size := x.Static()[axis]
		if size > 0 {
			parts = append(parts, part{x, at, at + size})
		}
		at += size
	}
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		src := append([]*loop.Expr{}, idx...)
		src[axis] = loop.Sub(idx[axis], loop.Int(p.from))
		here := loop.Less(idx[axis], loop.Int(p.to))
		if e == nil {
			e = k.access(p.v, src)
			continue
		}
		if here.Kind == loop.Const && here.I == 0 {
			continue
		}
		e = loop.If(here, k.access(p.v, src), e)
	}
	return e
}

// gather reads a position from data. Negative positions count from the end;
// positions outside are clamped, so that no input can make a kernel read
// beyond its buffers.
func (k *kb) gather(n *ir.Node, idx []*loop.Expr) *loop.Expr {
	x, pos := n.Inputs[0], n.Inputs[1]
	axis := n.Int("axis", 0)
	in := x.Static()
	r := pos.Rank()
	p := k.access(pos, idx[axis:axis+r])
	if fromStart(pos.Const) {
		p = loop.Clamp(loop.To(tensor.I64, p), 0, in[axis]-1)
	} else {
		p = k.position(p, in[axis])
	}
	src := append(append(append([]*loop.Expr{}, idx[:axis]...), p), idx[axis+r:]...)
	return k.access(x, src)
}

// fromStart reports constant positions of which none counts from the end.
func fromStart(t *tensor.Tensor) bool {
	if t == nil || t.DType.IsFloat() {
		return false
	}
	for i := range t.Len() {
		if t.Int(i) < 0 {
			return false
		}
	}
	return true
}

func (k *kb) position(p *loop.Expr, size int) *loop.Expr {
	p = loop.To(tensor.I64, p)
	if lo, _ := loop.Range(p); lo < 0 {
		p = loop.If(loop.Less(p, loop.Int(0)), loop.Add(p, loop.Int(size)), p)
	}
	return loop.Clamp(p, 0, size-1)
}

// scalar applies a pointwise op to operands; narrow floats are computed in F32
// and rounded after each op, as the reference does.
func scalar(n *ir.Node, args []*loop.Expr) *loop.Expr {
	d := n.Outputs[0].DType()
	switch n.Op {
	case "where":
		return loop.If(args[0], args[1], args[2])
	case "cast":
		return loop.To(d, args[0])
	case "bitcast":
		return loop.Reinterpret(d, args[0])
	}
	in := args[0].Type
	c := loop.Compute(in)
	wide := make([]*loop.Expr, len(args))
	for i, a := range args {
		wide[i] = loop.To(c, a)
	}
	return loop.To(d, loop.Fn(n.Op, wide...))
}
