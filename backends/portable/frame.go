package portable

import (
	"unsafe"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mem is a buffer's memory as a slice of its element type; the others are nil.
type mem struct {
	f32 []float32
	f64 []float64
	i8  []int8
	i16 []int16
	i32 []int32
	i64 []int64 // U64, too
	u8  []uint8 // Bool, too
	u16 []uint16
	u32 []uint32
}

func view[T any](b []byte) []T {
	var z T
	n := len(b) / int(unsafe.Sizeof(z))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// bind gives bytes the form of an element type. The bytes begin at a multiple
// of eight.
func bind(d tensor.DType, b []byte) (m mem) {
	switch d {
	case tensor.F32:
		m.f32 = view[float32](b)
	case tensor.F64:
		m.f64 = view[float64](b)
	case tensor.I8:
		m.i8 = view[int8](b)
	case tensor.I16:
		m.i16 = view[int16](b)
	case tensor.I32:
		m.i32 = view[int32](b)
	case tensor.I64, tensor.U64:
		m.i64 = view[int64](b)
	case tensor.U8, tensor.Bool:
		m.u8 = b
	case tensor.U16, tensor.F16, tensor.BF16:
		m.u16 = view[uint16](b)
	case tensor.U32:
		m.u32 = view[uint32](b)
	}
	return m
}

// frame is what one thread needs to run one kernel.
type frame struct {
	vars  []int     // loop variables
	fl    []float64 // registers of float types
	in    []int64   // registers of other types
	bufs  []mem     // parameters, then locals
	f32   [][]float32
	f64   [][]float64
	i64   [][]int64
	memo  []memo
	stamp uint64 // counts statements: memos of earlier ones are stale
	base  int    // the first lane of the slice being computed
}

// memo holds the value of a shared expression during one statement.
type memo struct {
	stamp uint64
	f     float64
	i     int64
	lo, n int // lanes, of a slice
	f32   []float32
	f64   []float64
	i64   []int64
}

// sizes count what a kernel's frames hold.
type sizes struct {
	vars, fl, in, f32, f64, i64, memo, chunk int
}

func newFrame(c *code) *frame {
	s := c.sizes
	f := &frame{
		vars: make([]int, s.vars), fl: make([]float64, s.fl), in: make([]int64, s.in), memo: make([]memo, s.memo),
		bufs: make([]mem, len(c.kernel.Params)+len(c.kernel.Locals)),
		f32:  slab[float32](s.f32, s.chunk), f64: slab[float64](s.f64, s.chunk), i64: slab[int64](s.i64, s.chunk),
	}
	for i, l := range c.kernel.Locals {
		words := make([]uint64, (l.Len*l.Type.Size()+7)/8+1)
		b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), l.Len*l.Type.Size())
		f.bufs[len(c.kernel.Params)+i] = bind(l.Type, b)
	}
	return f
}

func slab[T any](count, chunk int) [][]T {
	all := make([]T, count*chunk)
	out := make([][]T, count)
	for i := range out {
		out[i] = all[i*chunk : (i+1)*chunk : (i+1)*chunk]
	}
	return out
}
