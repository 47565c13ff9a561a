package portable

import (
	"math"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// place is where the lanes of an access lie: k elements apart from a base, or
// at indices that are computed lane by lane.
type place struct {
	k    int
	base func(f *frame) int
	each func(f *frame, lo, n int, dst []int64) []int64
}

func (b *builder) place(e *loop.Expr) place {
	terms, c := linear(e)
	if k, rest, ok := b.ofLane(terms); ok {
		return place{k: k, base: b.sum(rest, c)}
	}
	return place{each: b.slice(e).i64}
}

// gather copies n elements that lie as p says, converted.
func gather[S, T any](src []S, p place, f *frame, lo, n int, dst []T, conv func(S) T) {
	if p.each != nil {
		for i, at := range p.each(f, lo, n, nil) {
			dst[i] = conv(src[at])
		}
		return
	}
	at := p.base(f) + lo*p.k
	if p.k == 1 {
		src = src[at : at+n]
		dst = dst[:len(src)]
		for i, x := range src {
			dst[i] = conv(x)
		}
		return
	}
	for i := range dst {
		dst[i] = conv(src[at])
		at += p.k
	}
}

// read makes a load of elements that need no conversion: consecutive ones are
// used where they lie.
func read[T any](p place, of func(f *frame) []T, scratch func(f *frame, lo, n int) []T) func(f *frame, lo, n int, dst []T) []T {
	if p.each == nil && p.k == 1 {
		return func(f *frame, lo, n int, _ []T) []T {
			at := p.base(f) + lo
			return of(f)[at : at+n]
		}
	}
	return func(f *frame, lo, n int, dst []T) []T {
		if dst == nil {
			dst = scratch(f, lo, n)
		}
		src := of(f)
		if p.each != nil {
			idx := p.each(f, lo, n, nil)
			for i := range dst {
				dst[i] = src[idx[i]]
			}
			return dst
		}
		at := p.base(f) + lo*p.k
		for i := range dst {
			dst[i] = src[at]
			at += p.k
		}
		return dst
	}
}

func (b *builder) sliceLoad(e *loop.Expr) *vec {
	q, p := b.buffer(e.Buf), b.place(e.Args[0])
	switch d := e.Buf.Type; d {
	case tensor.F32:
		s := b.newF32()
		return &vec{f32: read(p, func(f *frame) []float32 { return f.bufs[q].f32 }, func(f *frame, lo, n int) []float32 { return f.at32(s, lo, n) })}
	case tensor.F64:
		s := b.newF64()
		return &vec{f64: read(p, func(f *frame) []float64 { return f.bufs[q].f64 }, func(f *frame, lo, n int) []float64 { return f.at64(s, lo, n) })}
	case tensor.I64, tensor.U64:
		s := b.newI64()
		return &vec{i64: read(p, func(f *frame) []int64 { return f.bufs[q].i64 }, func(f *frame, lo, n int) []int64 { return f.atI(s, lo, n) })}
	case tensor.F16:
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			gather(f.bufs[q].u16, p, f, lo, n, dst, tensor.F16ToFloat32)
		})
	case tensor.BF16:
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			gather(f.bufs[q].u16, p, f, lo, n, dst, func(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) })
		})
	case tensor.I8:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].i8, p, f, lo, n, dst, toI64[int8]) })
	case tensor.I16:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].i16, p, f, lo, n, dst, toI64[int16]) })
	case tensor.I32:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].i32, p, f, lo, n, dst, toI64[int32]) })
	case tensor.U8, tensor.Bool:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].u8, p, f, lo, n, dst, toI64[uint8]) })
	case tensor.U16:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].u16, p, f, lo, n, dst, toI64[uint16]) })
	case tensor.U32:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) { gather(f.bufs[q].u32, p, f, lo, n, dst, toI64[uint32]) })
	}
	reject("a load of %s", e.Buf.Type)
	return nil
}

func toI64[T int8 | int16 | int32 | uint8 | uint16 | uint32](v T) int64 { return int64(v) }

// mapF32, mapF64 and mapI64 make slices of computations that fill one.
func (b *builder) mapF32(g func(f *frame, lo, n int, dst []float32)) *vec {
	s := b.newF32()
	return &vec{f32: func(f *frame, lo, n int, dst []float32) []float32 {
		if dst == nil {
			dst = f.at32(s, lo, n)
		}
		g(f, lo, n, dst)
		return dst
	}}
}

func (b *builder) mapF64(g func(f *frame, lo, n int, dst []float64)) *vec {
	s := b.newF64()
	return &vec{f64: func(f *frame, lo, n int, dst []float64) []float64 {
		if dst == nil {
			dst = f.at64(s, lo, n)
		}
		g(f, lo, n, dst)
		return dst
	}}
}

func (b *builder) mapI64(g func(f *frame, lo, n int, dst []int64)) *vec {
	s := b.newI64()
	return &vec{i64: func(f *frame, lo, n int, dst []int64) []int64 {
		if dst == nil {
			dst = f.atI(s, lo, n)
		}
		g(f, lo, n, dst)
		return dst
	}}
}

// scatter stores a slice as p says, converted.
func scatter[S, T any](dst []T, p place, f *frame, lo, n int, src []S, conv func(S) T) {
	if p.each != nil {
		idx := p.each(f, lo, n, nil)
		for i, x := range src {
			dst[idx[i]] = conv(x)
		}
		return
	}
	at := p.base(f) + lo*p.k
	for _, x := range src {
		dst[at] = conv(x)
		at += p.k
	}
}

// write makes a store of elements that need no conversion: consecutive ones
// are computed where they are to lie.
func write[T any](p place, of func(f *frame) []T, v func(f *frame, lo, n int, dst []T) []T) lanes {
	if p.each == nil && p.k == 1 {
		return func(f *frame, lo, n int) {
			f.stamp++
			at := p.base(f) + lo
			into(of(f)[at:at+n], v, f, lo, n)
		}
	}
	return func(f *frame, lo, n int) {
		f.stamp++
		x := v(f, lo, n, nil)
		scatter(of(f), p, f, lo, n, x, func(x T) T { return x })
	}
}

func (b *builder) laneStore(s *loop.Store) lanes {
	typed("buffer "+s.Buf.Name, s.Buf.Type, s.Val)
	b.begin(s.Index, s.Val)
	q, p, v := b.buffer(s.Buf), b.place(s.Index), b.slice(s.Val)
	ints := func(put func(f *frame, lo, n int, x []int64)) lanes {
		return func(f *frame, lo, n int) {
			f.stamp++
			put(f, lo, n, v.i64(f, lo, n, nil))
		}
	}
	switch d := s.Buf.Type; d {
	case tensor.F32:
		return write(p, func(f *frame) []float32 { return f.bufs[q].f32 }, v.f32)
	case tensor.F64:
		return write(p, func(f *frame) []float64 { return f.bufs[q].f64 }, v.f64)
	case tensor.I64, tensor.U64:
		return write(p, func(f *frame) []int64 { return f.bufs[q].i64 }, v.i64)
	case tensor.F16, tensor.BF16:
		return func(f *frame, lo, n int) {
			f.stamp++
			scatter(f.bufs[q].u16, p, f, lo, n, v.f32(f, lo, n, nil), func(x float32) uint16 { return uint16(scalar.ToBits(d, float64(x))) })
		}
	case tensor.I8:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].i8, p, f, lo, n, x, func(x int64) int8 { return int8(x) })
		})
	case tensor.I16:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].i16, p, f, lo, n, x, func(x int64) int16 { return int16(x) })
		})
	case tensor.I32:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].i32, p, f, lo, n, x, func(x int64) int32 { return int32(x) })
		})
	case tensor.U8, tensor.Bool:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].u8, p, f, lo, n, x, func(x int64) uint8 { return uint8(x) })
		})
	case tensor.U16:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].u16, p, f, lo, n, x, func(x int64) uint16 { return uint16(x) })
		})
	case tensor.U32:
		return ints(func(f *frame, lo, n int, x []int64) {
			scatter(f.bufs[q].u32, p, f, lo, n, x, func(x int64) uint32 { return uint32(x) })
		})
	}
	reject("a store of %s", s.Buf.Type)
	return nil
}
