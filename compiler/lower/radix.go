package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// radixHead is from how many elements on they are sorted digit by digit instead
// of by counting for each how many come before it.
const radixHead = 192

// radixDigits is how many digits of eight bits a key has.
const radixDigits = 4

// digits are the counts of how often each digit has each value, first of what
// comes first, which become the places where the next such key goes.
type digits struct {
	s      *selection
	counts *loop.Buffer
}

// of is where the count of a key's digit is; the largest value is the first.
func (d digits) of(key *loop.Expr, digit int) *loop.Expr {
	v := loop.Fn("not", key)
	if digit > 0 {
		v = loop.Fn("shr", v, u32(int64(8*digit)))
	}
	return loop.Add(loop.Int(256*digit), loop.To(tensor.I64, loop.Fn("and", v, u32(255))))
}

// radix sorts keys and where they are, the largest first and equals as they are,
// into the outputs.
func (s *selection) radix(keys, where, vals, poss *loop.Buffer) []loop.Stmt {
	d := digits{s: s, counts: s.local("counts", tensor.I32, 256*radixDigits)}
	otherKeys, otherWhere := s.local("otherkeys", tensor.U32, s.head), s.local("otherwhere", tensor.I32, s.head)
	body := []loop.Stmt{&loop.Zero{Buf: d.counts, From: loop.Int(0), N: 256 * radixDigits}}
	body = append(body, d.count(keys))
	body = append(body, d.places()...)
	shape := s.n.Outputs[0].Static()
	for digit := range radixDigits {
		last := digit == radixDigits-1
		body = append(body, d.move(keys, where, digit, func(to, key, from *loop.Expr) []loop.Stmt {
			if last {
				index := loop.Flatten(s.at(to), shape)
				return []loop.Stmt{
					&loop.Store{Buf: vals, Index: index, Val: s.access(s.n.Inputs[0], s.at(loop.Clamp(loop.To(tensor.I64, from), 0, s.size-1)))},
					&loop.Store{Buf: poss, Index: index, Val: loop.To(tensor.I64, from)},
				}
			}
			return []loop.Stmt{
				&loop.Store{Buf: otherKeys, Index: to, Val: key},
				&loop.Store{Buf: otherWhere, Index: to, Val: from},
			}
		}))
		if where == nil { // the first digit of a whole line
			where = s.local("where", tensor.I32, s.head)
		}
		keys, otherKeys = otherKeys, keys
		where, otherWhere = otherWhere, where
	}
	return body
}

// count counts the values of all digits in one walk.
func (d digits) count(keys *loop.Buffer) loop.Stmt {
	i, key := d.s.fresh("i", d.s.head), d.s.reg("key", tensor.U32)
	body := []loop.Stmt{&loop.Set{Reg: key, Val: loop.At(keys, loop.V(i)), Decl: true}}
	for digit := range radixDigits {
		at := d.of(loop.R(key), digit)
		body = append(body, &loop.Store{Buf: d.counts, Index: at, Val: loop.Fn("add", loop.At(d.counts, at), i32(1))})
	}
	return &loop.For{Var: i, Body: body}
}

// places makes the counts the places of the first key with each value.
func (d digits) places() []loop.Stmt {
	var body, walk []loop.Stmt
	v := d.s.fresh("v", 256)
	for digit := range radixDigits {
		sum, many := d.s.reg("sum", tensor.I32), d.s.reg("many", tensor.I32)
		at := loop.Add(loop.Int(256*digit), loop.V(v))
		body = append(body, &loop.Set{Reg: sum, Val: i32(0), Decl: true})
		walk = append(walk,
			&loop.Set{Reg: many, Val: loop.At(d.counts, at), Decl: true},
			&loop.Store{Buf: d.counts, Index: at, Val: loop.R(sum)},
			&loop.Set{Reg: sum, Val: loop.Fn("add", loop.R(sum), loop.R(many))})
	}
	return append(body, &loop.For{Var: v, Body: walk})
}

// move takes each key to its place by one digit; without where they are, that is
// where they are found.
func (d digits) move(keys, where *loop.Buffer, digit int, put func(to, key, from *loop.Expr) []loop.Stmt) loop.Stmt {
	i, key := d.s.fresh("i", d.s.head), d.s.reg("key", tensor.U32)
	at, to, from := d.s.reg("at", tensor.I64), d.s.reg("to", tensor.I32), d.s.reg("from", tensor.I32)
	origin := loop.To(tensor.I32, loop.V(i))
	if where != nil {
		origin = loop.At(where, loop.V(i))
	}
	body := []loop.Stmt{
		&loop.Set{Reg: key, Val: loop.At(keys, loop.V(i)), Decl: true},
		&loop.Set{Reg: from, Val: origin, Decl: true},
		&loop.Set{Reg: at, Val: d.of(loop.R(key), digit), Decl: true},
		&loop.Set{Reg: to, Val: loop.At(d.counts, loop.R(at)), Decl: true},
		&loop.Store{Buf: d.counts, Index: loop.R(at), Val: loop.Fn("add", loop.R(to), i32(1))},
	}
	place := loop.Clamp(loop.To(tensor.I64, loop.R(to)), 0, d.s.head-1)
	return &loop.For{Var: i, Body: append(body, put(place, loop.R(key), loop.R(from))...)}
}
