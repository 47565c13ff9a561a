package interp

import (
	"encoding/binary"
	"math"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// kernel is a kernel with what evaluation wants to know of it.
type kernel struct {
	*loop.Kernel
	// shared are the expressions with several users. They are evaluated once a
	// statement: written out, an expression can be exponentially large.
	shared map[*loop.Expr]bool
}

func prepare(k *loop.Kernel) *kernel {
	out := &kernel{k, map[*loop.Expr]bool{}}
	seen := map[*loop.Expr]bool{}
	var visit func(e *loop.Expr)
	visit = func(e *loop.Expr) {
		if e == nil {
			return
		}
		if seen[e] {
			out.shared[e] = len(e.Args) > 0
			return
		}
		seen[e] = true
		for _, a := range e.Args {
			visit(a)
		}
	}
	var body func(b []loop.Stmt)
	body = func(b []loop.Stmt) {
		for _, s := range b {
			switch s := s.(type) {
			case *loop.For:
				body(s.Body)
			case *loop.Store:
				visit(s.Index)
				visit(s.Val)
			case *loop.Set:
				visit(s.Val)
			case *loop.Accum:
				visit(s.Val)
			case *loop.Cond:
				visit(s.If)
				body(s.Then)
				body(s.Else)
			}
		}
	}
	body(k.Body)
	return out
}

// value is a scalar: F of a float type, I of any other.
type value struct {
	F float64
	I int64
}

// exec is one run of one kernel.
type exec struct {
	*kernel
	o    Options
	vars map[*loop.Var]int64
	regs map[*loop.Reg]value
	bufs map[*loop.Buffer][]byte
	memo map[*loop.Expr]value
}

// scrub forgets what scratch holds.
func (x *exec) scrub() {
	for _, l := range x.Locals {
		poison(x.bufs[l])
	}
}

func (x *exec) body(b []loop.Stmt) {
	for _, s := range b {
		x.stmt(s)
	}
}

func (x *exec) stmt(s loop.Stmt) {
	clear(x.memo)
	switch s := s.(type) {
	case *loop.For:
		x.loop(s)
	case *loop.Store:
		typed("buffer "+s.Buf.Name, s.Buf.Type, s.Val)
		i := x.eval(s.Index).I
		x.store(s.Buf, i, x.eval(s.Val))
	case *loop.Set:
		typed("register "+s.Reg.Name, s.Reg.Type, s.Val)
		x.regs[s.Reg] = x.eval(s.Val)
	case *loop.Accum:
		typed("register "+s.Reg.Name, s.Reg.Type, s.Val)
		old, ok := x.regs[s.Reg]
		if !ok {
			fail("register %s is accumulated into before it is set", s.Reg.Name)
		}
		x.regs[s.Reg] = apply(s.Fn, s.Reg.Type, s.Reg.Type, old, x.eval(s.Val))
	case *loop.Cond:
		if x.eval(s.If).I != 0 {
			x.body(s.Then)
		} else {
			x.body(s.Else)
		}
	case *loop.Zero:
		from := x.eval(s.From).I
		for i := range int64(s.N) {
			x.fill(s.Buf, from+i, s.Fill)
		}
	case *loop.Tile:
		x.tile(s)
	default:
		fail("a statement of type %T is not known", s)
	}
}

// typed rejects a statement that gives a value of another type than its target.
func typed(what string, want tensor.DType, e *loop.Expr) {
	if e.Type != want {
		fail("%s of type %s is given %s: %s", what, want, e.Type, e.Key())
	}
}

func (x *exec) loop(f *loop.For) {
	for i := range f.Var.N {
		if f.Par {
			x.scrub() // another thread may have run the iteration before
		}
		if x.o.Backwards && (f.Par || f.Team || f.Kind == loop.Vector) {
			i = f.Var.N - 1 - i
		}
		x.vars[f.Var] = int64(i)
		x.body(f.Body)
	}
	delete(x.vars, f.Var)
}

// slot is the memory of one element.
func (x *exec) slot(b *loop.Buffer, i int64, what string) []byte {
	mem, ok := x.bufs[b]
	if !ok {
		fail("%s %s: the kernel has no such buffer", what, b.Name)
	}
	if i < 0 || i >= int64(b.Len) {
		fail("%s %s[%d], which has %d elements", what, b.Name, i, b.Len)
	}
	n := int64(b.Type.Size())
	return mem[i*n : (i+1)*n]
}

func (x *exec) load(b *loop.Buffer, i int64) value {
	m := x.slot(b, i, "load")
	switch b.Type {
	case tensor.F32:
		return value{F: float64(math.Float32frombits(binary.LittleEndian.Uint32(m)))}
	case tensor.F64:
		return value{F: math.Float64frombits(binary.LittleEndian.Uint64(m))}
	case tensor.F16, tensor.BF16:
		return value{F: scalar.FromBits(b.Type, uint64(binary.LittleEndian.Uint16(m)))}
	case tensor.Bool, tensor.U8:
		return value{I: int64(m[0])}
	case tensor.I8:
		return value{I: int64(int8(m[0]))}
	case tensor.U16:
		return value{I: int64(binary.LittleEndian.Uint16(m))}
	case tensor.I16:
		return value{I: int64(int16(binary.LittleEndian.Uint16(m)))}
	case tensor.U32:
		return value{I: int64(binary.LittleEndian.Uint32(m))}
	case tensor.I32:
		return value{I: int64(int32(binary.LittleEndian.Uint32(m)))}
	case tensor.U64, tensor.I64:
		return value{I: int64(binary.LittleEndian.Uint64(m))}
	}
	fail("load %s: elements of type %s", b.Name, b.Type)
	return value{}
}

// fill sets every byte of an element.
func (x *exec) fill(b *loop.Buffer, i int64, v byte) {
	if b.Space == loop.Param && !b.Out {
		fail("fill %s, which is not an output", b.Name)
	}
	m := x.slot(b, i, "fill")
	for j := range m {
		m[j] = v
	}
}

func (x *exec) store(b *loop.Buffer, i int64, v value) {
	if b.Space == loop.Param && !b.Out {
		fail("store to %s, which is not an output", b.Name)
	}
	m := x.slot(b, i, "store")
	bits := uint64(v.I)
	if b.Type.IsFloat() {
		bits = scalar.ToBits(b.Type, v.F)
	}
	switch len(m) {
	case 1:
		m[0] = byte(bits)
	case 2:
		binary.LittleEndian.PutUint16(m, uint16(bits))
	case 4:
		binary.LittleEndian.PutUint32(m, uint32(bits))
	case 8:
		binary.LittleEndian.PutUint64(m, bits)
	default:
		fail("store %s: elements of type %s", b.Name, b.Type)
	}
}
