package lower

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// selectHead is from how many elements on the head of an order is selected by
// its last element instead of being kept in order all along.
const selectHead = 64

// selection builds the kernel that sorts the first elements of an order.
type selection struct {
	*kb
	n          *ir.Node
	size, head int
	o          *loop.Var
	at         func(*loop.Expr) []*loop.Expr
	keys       *loop.Buffer // unsigned: what comes first has the largest
	last       *loop.Reg    // the key of the last element of the head
}

// emitSelect finds the key of the last element of the head bit by bit, each time
// by counting how many keys are at least as large; takes what is beyond it and as
// many of its equals as there is room for, in order; and sorts those by rank.
func (l *lowerer) emitSelect(g *group, head int) error {
	n := g.anchor
	shape, axis := n.Inputs[0].Static(), n.Int("axis", 0)
	s := &selection{kb: l.kernelFor(g.root), n: n, size: shape[axis], head: head}
	vals, poss := s.param(l.places[n.Outputs[0]].buf, true), s.param(l.places[n.Outputs[1]].buf, true)
	s.o, s.at = s.line(shape, axis)
	block := sieveBlock(s.size, head)
	s.keys, s.last = s.local("keys", tensor.U32, s.size+block), s.reg("last", tensor.U32)
	body := append(s.order(), &loop.Set{Reg: s.last, Val: u32(0), Decl: true})
	keys, where := s.keys, (*loop.Buffer)(nil)
	switch {
	case block > 0:
		var stmts []loop.Stmt
		keys, where, stmts = s.sieve(block)
		body = append(body, stmts...)
	case head < s.size:
		keys, where = s.local("taken", tensor.U32, head+1), s.local("where", tensor.I32, head+1)
		body = append(body, s.find(s.keys, s.size, s.last, 32)...)
		body = append(body, s.take(s.keys, nil, s.size, keys, where)...)
	}
	if head >= radixHead {
		body = append(body, s.radix(keys, where, vals, poss)...)
	} else {
		body = append(body, s.rank(keys, where, vals, poss)...)
	}
	work := int64(tensor.Numel(shape)) * 40
	s.finish("head", []loop.Stmt{&loop.For{Var: s.o, Par: work >= parallelWork && s.o.N > 1, Body: body}}, work)
	return nil
}

func u32(v int64) *loop.Expr { return loop.Number(tensor.U32, 0, v) }

func i32(v int64) *loop.Expr { return loop.Number(tensor.I32, 0, v) }

// order makes keys of the elements: floats as whole numbers in the same order,
// with one zero.
func (s *selection) order() []loop.Stmt {
	i := s.fresh("i", s.size)
	v := loop.Fn("add", s.access(s.n.Inputs[0], s.at(loop.V(i))), loop.Number(tensor.F32, 0, 0))
	b := loop.Reinterpret(tensor.I32, v)
	key := loop.Fn("xor", b, loop.Fn("or", loop.Fn("shr", b, i32(31)), i32(-1<<31)))
	if s.n.Int("descending", 0) == 0 {
		key = loop.Fn("not", key)
	}
	return []loop.Stmt{&loop.For{Var: i, Kind: loop.Vector, Body: []loop.Stmt{
		&loop.Store{Buf: s.keys, Index: loop.V(i), Val: loop.Reinterpret(tensor.U32, key)}}}}
}

// count counts the keys that hold.
func (s *selection) count(keys *loop.Buffer, n int, into *loop.Reg, holds func(key *loop.Expr) *loop.Expr) []loop.Stmt {
	i := s.fresh("i", n)
	return []loop.Stmt{
		&loop.Set{Reg: into, Val: i32(0), Decl: true},
		&loop.For{Var: i, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Accum{Reg: into, Fn: "add", Val: loop.If(holds(loop.At(keys, loop.V(i))), i32(1), i32(0))}}},
	}
}

// find sets last to the first bits of the key that is the last of the head among
// n keys.
func (s *selection) find(keys *loop.Buffer, n int, last *loop.Reg, bits int) []loop.Stmt {
	bit := s.fresh("b", bits)
	try, many := s.reg("try", tensor.U32), s.reg("many", tensor.I32)
	step := []loop.Stmt{&loop.Set{Reg: try, Decl: true,
		Val: loop.Fn("or", loop.R(last), loop.Fn("shl", u32(1), loop.To(tensor.U32, loop.Sub(loop.Int(31), loop.V(bit)))))}}
	step = append(step, s.count(keys, n, many, func(key *loop.Expr) *loop.Expr { return loop.Fn("le", loop.R(try), key) })...)
	step = append(step, &loop.Cond{If: loop.Fn("le", i32(int64(s.head)), loop.R(many)), Then: []loop.Stmt{
		&loop.Set{Reg: last, Val: loop.R(try)}}})
	return []loop.Stmt{&loop.Set{Reg: last, Val: u32(0), Decl: last != s.last}, &loop.For{Var: bit, Body: step}}
}

// take copies the keys of the head and where they are, in the order of the line,
// without a branch: what is not taken is overwritten. Without where the keys are
// from, that is where they are found.
func (s *selection) take(keys, from *loop.Buffer, n int, taken, where *loop.Buffer) []loop.Stmt {
	beyond, room, to := s.reg("beyond", tensor.I32), s.reg("room", tensor.I32), s.reg("to", tensor.I64)
	key, in := s.reg("key", tensor.U32), s.reg("in", tensor.Bool)
	body := s.count(keys, n, beyond, func(key *loop.Expr) *loop.Expr { return loop.Fn("lt", loop.R(s.last), key) })
	i := s.fresh("i", n)
	origin := loop.To(tensor.I32, loop.V(i))
	if from != nil {
		origin = loop.At(from, loop.V(i))
	}
	equal := loop.Fn("eq", loop.R(s.last), loop.R(key))
	index := loop.Clamp(loop.R(to), 0, s.head)
	return append(body,
		&loop.Set{Reg: room, Val: loop.Fn("sub", i32(int64(s.head)), loop.R(beyond)), Decl: true},
		&loop.Set{Reg: to, Val: loop.Int(0), Decl: true},
		&loop.For{Var: i, Body: []loop.Stmt{
			&loop.Set{Reg: key, Val: loop.At(keys, loop.V(i)), Decl: true},
			&loop.Set{Reg: in, Val: loop.Fn("or", loop.Fn("lt", loop.R(s.last), loop.R(key)), loop.Fn("and", equal, loop.Fn("lt", i32(0), loop.R(room)))), Decl: true},
			&loop.Store{Buf: taken, Index: index, Val: loop.R(key)},
			&loop.Store{Buf: where, Index: index, Val: origin},
			&loop.Set{Reg: room, Val: loop.Fn("sub", loop.R(room), loop.To(tensor.I32, equal))},
			&loop.Set{Reg: to, Val: loop.Fn("add", loop.R(to), loop.To(tensor.I64, loop.R(in)))},
		}})
}

// rank places what was taken by how many come before it: those with larger keys,
// and the equals that were placed already.
func (s *selection) rank(taken, where, vals, poss *loop.Buffer) []loop.Stmt {
	i, j := s.fresh("i", s.head), s.fresh("j", s.head)
	mine, rank, to := s.reg("mine", tensor.U32), s.reg("rank", tensor.I32), s.reg("to", tensor.I64)
	placed := s.local("placed", tensor.I32, s.head)
	first := loop.Clamp(loop.To(tensor.I64, loop.R(rank)), 0, s.head-1)
	before := loop.Fn("lt", loop.R(mine), loop.At(taken, loop.V(j)))
	shape := s.n.Outputs[0].Static()
	index := loop.Flatten(s.at(loop.Clamp(loop.R(to), 0, s.head-1)), shape)
	from := loop.Clamp(loop.To(tensor.I64, loop.At(where, loop.V(i))), 0, s.size-1)
	return []loop.Stmt{&loop.Zero{Buf: placed, From: loop.Int(0), N: s.head}, &loop.For{Var: i, Body: []loop.Stmt{
		&loop.Set{Reg: mine, Val: loop.At(taken, loop.V(i)), Decl: true},
		&loop.Set{Reg: rank, Val: i32(0), Decl: true},
		&loop.For{Var: j, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: rank, Fn: "add", Val: loop.If(before, i32(1), i32(0))}}},
		&loop.Set{Reg: to, Val: loop.Fn("add", first, loop.To(tensor.I64, loop.At(placed, first))), Decl: true},
		&loop.Store{Buf: placed, Index: first, Val: loop.Fn("add", loop.At(placed, first), i32(1))},
		&loop.Store{Buf: vals, Index: index, Val: s.access(s.n.Inputs[0], s.at(from))},
		&loop.Store{Buf: poss, Index: index, Val: loop.To(tensor.I64, loop.At(where, loop.V(i)))},
	}}}
}
