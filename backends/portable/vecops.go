package portable

import (
	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func (b *builder) sliceCast(e *loop.Expr) *vec {
	from, to := e.Args[0].Type, e.Type
	x := b.slice(e.Args[0])
	switch {
	case isF32(from) && isF32(to):
		if to == tensor.F32 {
			return x
		}
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range x.f32(f, lo, n, nil) {
				dst[i] = float32(scalar.Round(to, float64(v)))
			}
		})
	case isF32(from) && to == tensor.F64:
		return b.mapF64(func(f *frame, lo, n int, dst []float64) {
			for i, v := range x.f32(f, lo, n, nil) {
				dst[i] = float64(v)
			}
		})
	case from == tensor.F64 && isF32(to):
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range x.f64(f, lo, n, nil) {
				dst[i] = float32(scalar.Round(to, v))
			}
		})
	case isF32(from):
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			for i, v := range x.f32(f, lo, n, nil) {
				dst[i] = scalar.FloatToInt(to, float64(v))
			}
		})
	case from == tensor.F64:
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			for i, v := range x.f64(f, lo, n, nil) {
				dst[i] = scalar.FloatToInt(to, v)
			}
		})
	case to == tensor.F64:
		return b.mapF64(func(f *frame, lo, n int, dst []float64) {
			for i, v := range x.i64(f, lo, n, nil) {
				dst[i] = scalar.IntToFloat(from, to, v)
			}
		})
	case to == tensor.F32 && from != tensor.U64:
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range x.i64(f, lo, n, nil) {
				dst[i] = float32(v)
			}
		})
	case isF32(to):
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range x.i64(f, lo, n, nil) {
				dst[i] = float32(scalar.IntToFloat(from, to, v))
			}
		})
	case to == tensor.I64 || to == tensor.U64 || from == tensor.Bool:
		return x
	}
	return b.mapI64(func(f *frame, lo, n int, dst []int64) {
		for i, v := range x.i64(f, lo, n, nil) {
			dst[i] = scalar.IntToInt(to, v)
		}
	})
}

func (b *builder) sliceCall(e *loop.Expr) *vec {
	in := e.Args[0].Type
	switch {
	case e.Fn == "and" && e.Type == tensor.Bool:
		return b.sliceAnd(e)
	case e.Fn == "clamp":
		x, lo, hi := b.slice(e.Args[0]), e.Args[1].I, e.Args[2].I
		return b.mapI64(func(f *frame, at, n int, dst []int64) {
			for i, v := range x.i64(f, at, n, nil) {
				dst[i] = min(max(v, lo), hi)
			}
		})
	case in == tensor.I64 && (e.Fn == "add" || e.Fn == "mul"):
		if v := b.sliceLinear(e); v != nil {
			return v
		}
	case e.Fn == "isnan":
		return b.sliceTest1(e)
	}
	switch {
	case isF32(in) && e.Type == tensor.Bool:
		return b.testF32(e)
	case isF32(in):
		return b.callF32(e, in)
	case in == tensor.F64:
		return b.callF64(e)
	}
	return b.callI64(e, in)
}

// sliceLinear counts up where an index is a multiple of the lane.
func (b *builder) sliceLinear(e *loop.Expr) *vec {
	terms, c := linear(e)
	k, rest, ok := b.ofLane(terms)
	if !ok {
		return nil
	}
	base := b.sum(rest, c)
	return b.mapI64(func(f *frame, lo, n int, dst []int64) {
		at := int64(base(f) + lo*k)
		for i := range dst {
			dst[i] = at
			at += int64(k)
		}
	})
}

// sliceAnd looks at the second condition only where the first holds.
func (b *builder) sliceAnd(e *loop.Expr) *vec {
	c := choice{}
	yes := b.slice(e.Args[1])
	if b.harmless(e.Args[1]) {
		x := b.slice(e.Args[0])
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			p := x.i64(f, lo, n, nil)
			q := yes.i64(f, lo, n, nil)
			for i := range dst {
				dst[i] = truth(p[i] != 0 && q[i] != 0)
			}
		})
	}
	c = b.choice(e.Args[0])
	return b.mapI64(func(f *frame, lo, n int, dst []int64) {
		from := lo
		c.split(f, lo, n,
			func(f *frame, lo, n int) {
				for i, v := range yes.i64(f, lo, n, nil) {
					dst[lo-from+i] = truth(v != 0)
				}
			},
			func(_ *frame, lo, n int) { clear(dst[lo-from : lo-from+n]) })
	})
}

func (b *builder) sliceTest1(e *loop.Expr) *vec {
	x := b.slice(e.Args[0])
	if x.f64 != nil {
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			for i, v := range x.f64(f, lo, n, nil) {
				dst[i] = truth(v != v)
			}
		})
	}
	return b.mapI64(func(f *frame, lo, n int, dst []int64) {
		for i, v := range x.f32(f, lo, n, nil) {
			dst[i] = truth(v != v)
		}
	})
}

func (b *builder) testF32(e *loop.Expr) *vec {
	x, y := b.slice(e.Args[0]), b.slice(e.Args[1])
	test := func(g func(p, q []float32, dst []int64)) *vec {
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			p := x.f32(f, lo, n, nil)
			q := y.f32(f, lo, n, nil)
			g(p[:len(dst)], q[:len(dst)], dst)
		})
	}
	switch e.Fn {
	case "lt":
		return test(func(p, q []float32, dst []int64) {
			for i := range dst {
				dst[i] = truth(p[i] < q[i])
			}
		})
	case "le":
		return test(func(p, q []float32, dst []int64) {
			for i := range dst {
				dst[i] = truth(p[i] <= q[i])
			}
		})
	case "eq":
		return test(func(p, q []float32, dst []int64) {
			for i := range dst {
				dst[i] = truth(p[i] == q[i])
			}
		})
	}
	reject("scalar function %s is no comparison of floats", e.Fn)
	return nil
}

// binary32 are the functions that have loops of their own: of two slices, of a
// slice and a value, of a value and a slice.
var binary32 = map[string]struct {
	vv func(dst, a, b []float32)
	vs func(dst, a []float32, b float32)
	sv func(dst []float32, a float32, b []float32)
}{
	"add": {addVV, addVS, func(dst []float32, a float32, b []float32) { addVS(dst, b, a) }},
	"mul": {mulVV, mulVS, func(dst []float32, a float32, b []float32) { mulVS(dst, b, a) }},
	"sub": {subVV, func(dst, a []float32, b float32) { addVS(dst, a, -b) }, subSV},
	"div": {divVV, divVS, divSV},
	"max": {maxVV, maxVS, func(dst []float32, a float32, b []float32) { maxVS(dst, b, a) }},
	"min": {minVV, minVS, func(dst []float32, a float32, b []float32) { minVS(dst, b, a) }},
}

// callF32 computes functions of F32; narrow floats do not occur here, since
// they are widened before they are computed with.
func (b *builder) callF32(e *loop.Expr, d tensor.DType) *vec {
	x := b.slice(e.Args[0])
	if len(e.Args) == 1 {
		return b.unary32(e.Fn, d, x)
	}
	if v := b.axpy(e); v != nil {
		return v
	}
	y := b.slice(e.Args[1])
	g, own := binary32[e.Fn]
	switch {
	case own && d == tensor.F32 && y.uni != nil:
		s := y.uni.f
		return b.mapF32(func(f *frame, lo, n int, dst []float32) { g.vs(dst, x.f32(f, lo, n, nil), float32(s(f))) })
	case own && d == tensor.F32 && x.uni != nil:
		s := x.uni.f
		return b.mapF32(func(f *frame, lo, n int, dst []float32) { g.sv(dst, float32(s(f)), y.f32(f, lo, n, nil)) })
	case own && d == tensor.F32:
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			p := x.f32(f, lo, n, nil)
			g.vv(dst, p, y.f32(f, lo, n, nil))
		})
	}
	h := binaryFloat(e.Fn, d)
	return b.mapF32(func(f *frame, lo, n int, dst []float32) {
		p := x.f32(f, lo, n, nil)
		for i, q := range y.f32(f, lo, n, nil) {
			dst[i] = float32(h(float64(p[i]), float64(q)))
		}
	})
}

// axpy is a + s·b with one s for all lanes: the inner step of contractions that
// have no tiles. Nil if the expression is another.
func (b *builder) axpy(e *loop.Expr) *vec {
	if e.Fn != "add" || e.Type != tensor.F32 {
		return nil
	}
	m := e.Args[1]
	if m.Kind != loop.Call || m.Fn != "mul" || b.uses[m.Key()] > 1 || !b.varies(m) {
		return nil
	}
	s, v := m.Args[0], m.Args[1]
	if b.varies(s) {
		s, v = v, s
	}
	if b.varies(s) {
		return nil
	}
	a, k, w := b.slice(e.Args[0]), b.value(s).f, b.slice(v)
	return b.mapF32(func(f *frame, lo, n int, dst []float32) {
		p := a.f32(f, lo, n, nil)
		q := w.f32(f, lo, n, nil)
		axpy(dst, p, q, float32(k(f)))
	})
}

func (b *builder) unary32(name string, d tensor.DType, x *vec) *vec {
	if d == tensor.F32 {
		switch name {
		case "neg":
			return b.mapF32(func(f *frame, lo, n int, dst []float32) {
				for i, v := range x.f32(f, lo, n, nil) {
					dst[i] = -v
				}
			})
		}
		g := lookup(name).F1
		if g == nil {
			reject("scalar function %s has no meaning for one %s", name, d)
		}
		return b.mapF32(func(f *frame, lo, n int, dst []float32) {
			for i, v := range x.f32(f, lo, n, nil) {
				dst[i] = float32(g(float64(v)))
			}
		})
	}
	g := unaryFloat(name, d)
	return b.mapF32(func(f *frame, lo, n int, dst []float32) {
		for i, v := range x.f32(f, lo, n, nil) {
			dst[i] = float32(g(float64(v)))
		}
	})
}

func (b *builder) callF64(e *loop.Expr) *vec {
	x := b.slice(e.Args[0])
	if len(e.Args) == 1 {
		g := unaryFloat(e.Fn, tensor.F64)
		return b.mapF64(func(f *frame, lo, n int, dst []float64) {
			for i, v := range x.f64(f, lo, n, nil) {
				dst[i] = g(v)
			}
		})
	}
	y := b.slice(e.Args[1])
	if e.Type == tensor.Bool {
		g := testFloat(e.Fn)
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			p := x.f64(f, lo, n, nil)
			for i, v := range y.f64(f, lo, n, nil) {
				dst[i] = truth(g(p[i], v))
			}
		})
	}
	g := binaryFloat(e.Fn, tensor.F64)
	return b.mapF64(func(f *frame, lo, n int, dst []float64) {
		p := x.f64(f, lo, n, nil)
		for i, v := range y.f64(f, lo, n, nil) {
			dst[i] = g(p[i], v)
		}
	})
}

func (b *builder) callI64(e *loop.Expr, in tensor.DType) *vec {
	x := b.slice(e.Args[0])
	if len(e.Args) == 1 {
		g := unaryInt(e.Fn, in)
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			for i, v := range x.i64(f, lo, n, nil) {
				dst[i] = g(v)
			}
		})
	}
	y := b.slice(e.Args[1])
	loop := func(g func(p, q, dst []int64)) *vec {
		return b.mapI64(func(f *frame, lo, n int, dst []int64) {
			p := x.i64(f, lo, n, nil)
			q := y.i64(f, lo, n, nil)
			g(p[:len(dst)], q[:len(dst)], dst)
		})
	}
	if in == tensor.I64 || in == tensor.I32 && e.Type == tensor.Bool {
		switch e.Fn {
		case "add":
			return loop(func(p, q, dst []int64) {
				for i := range dst {
					dst[i] = p[i] + q[i]
				}
			})
		case "sub":
			return loop(func(p, q, dst []int64) {
				for i := range dst {
					dst[i] = p[i] - q[i]
				}
			})
		case "mul":
			return loop(func(p, q, dst []int64) {
				for i := range dst {
					dst[i] = p[i] * q[i]
				}
			})
		case "lt":
			return loop(func(p, q, dst []int64) {
				for i := range dst {
					dst[i] = truth(p[i] < q[i])
				}
			})
		case "eq":
			return loop(func(p, q, dst []int64) {
				for i := range dst {
					dst[i] = truth(p[i] == q[i])
				}
			})
		}
	}
	g := binaryInt(e.Fn, in, e.Type)
	return loop(func(p, q, dst []int64) {
		for i := range dst {
			dst[i] = g(p[i], q[i])
		}
	})
}
