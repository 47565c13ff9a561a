package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// sieveHead is from how many elements on the head of a far longer line is looked
// for in the few blocks that hold it.
const sieveHead = 8

// sieveBits is how many bits of the bound are looked for: a lower one only lets
// a few more keys through.
const sieveBits = 20

// sieveBlock is how many neighbours are judged by their largest key, so that
// there are twice as many blocks as elements asked for; 0 where lines are too
// short for that.
func sieveBlock(size, head int) int {
	switch {
	case head < sieveHead:
		return 0
	case size >= 64*8*head:
		return 64
	case size >= 32*2*head:
		return 32
	case size >= 16*2*head:
		return 16
	}
	return 0
}

// sieve finds the head from the largest keys of blocks: as many blocks as the head
// has elements hold a key at least as large as the last of those, so that only
// keys no smaller than that, in such blocks, come into question. Where they are
// more than there is room for — ties, lines in order — the whole line is looked at.
func (s *selection) sieve(block int) (keys, where *loop.Buffer, body []loop.Stmt) {
	blocks := (s.size + block - 1) / block
	room := (2*s.head + 47) / 16 * 16
	tops, least := s.local("tops", tensor.U32, blocks), s.reg("least", tensor.U32)
	near, nearAt := s.local("near", tensor.U32, room+1), s.local("nearat", tensor.I32, room+1)
	found, key := s.reg("found", tensor.I64), s.reg("key", tensor.U32)
	keys, where = s.local("taken", tensor.U32, s.head+1), s.local("where", tensor.I32, s.head+1)

	b, i := s.fresh("b", blocks), s.fresh("i", block)
	at := loop.Add(loop.Mul(loop.V(b), block), loop.V(i))
	to := loop.Clamp(loop.R(found), 0, room)
	body = append(s.tops(tops, block), s.find(tops, blocks, least, sieveBits)...)
	body = append(body,
		&loop.Zero{Buf: near, From: loop.Int(0), N: room},
		&loop.Set{Reg: found, Val: loop.Int(0), Decl: true},
		&loop.For{Var: b, Body: []loop.Stmt{
			&loop.Cond{If: loop.Fn("and", loop.Fn("le", loop.R(least), loop.At(tops, loop.V(b))), loop.Fn("le", loop.R(found), loop.Int(room))),
				Then: []loop.Stmt{&loop.For{Var: i, Body: []loop.Stmt{
					&loop.Set{Reg: key, Val: loop.At(s.keys, at), Decl: true},
					&loop.Store{Buf: near, Index: to, Val: loop.R(key)},
					&loop.Store{Buf: nearAt, Index: to, Val: loop.To(tensor.I32, at)},
					&loop.Set{Reg: found, Val: loop.Fn("add", loop.R(found), loop.To(tensor.I64, loop.Fn("le", loop.R(least), loop.R(key))))},
				}}}}}},
		&loop.Cond{If: loop.Fn("le", loop.R(found), loop.Int(room)),
			Then: append(append(s.swept(near, found, room), s.find(near, room, s.last, 32)...), s.take(near, nearAt, room, keys, where)...),
			Else: append(s.find(s.keys, s.size, s.last, 32), s.take(s.keys, nil, s.size, keys, where)...)})
	return keys, where, body
}

// swept clears the one key that was put behind the last one found.
func (s *selection) swept(near *loop.Buffer, found *loop.Reg, room int) []loop.Stmt {
	return []loop.Stmt{&loop.Store{Buf: near, Index: loop.Clamp(loop.R(found), 0, room), Val: u32(0)}}
}

// tops sets the largest key of each block.
func (s *selection) tops(tops *loop.Buffer, block int) []loop.Stmt {
	b, i, top := s.fresh("b", tops.Len), s.fresh("i", block), s.reg("top", tensor.U32)
	var body []loop.Stmt
	if pad := tops.Len*block - s.size; pad > 0 {
		body = append(body, &loop.Zero{Buf: s.keys, From: loop.Int(s.size), N: pad})
	}
	key := loop.At(s.keys, loop.Add(loop.Mul(loop.V(b), block), loop.V(i)))
	return append(body, &loop.For{Var: b, Body: []loop.Stmt{
		&loop.Set{Reg: top, Val: u32(0), Decl: true},
		&loop.For{Var: i, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: top, Fn: "max", Val: key}}},
		&loop.Store{Buf: tops, Index: loop.V(b), Val: loop.R(top)},
	}})
}
