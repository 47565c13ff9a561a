package portable

import (
	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func lookup(name string) *scalar.Func {
	f := scalar.Lookup(name)
	if f == nil {
		reject("scalar function %s is not known", name)
	}
	return f
}

// unaryFloat is a function of a float type, rounded to it.
func unaryFloat(name string, d tensor.DType) func(a float64) float64 {
	g := lookup(name).F1
	if g == nil {
		reject("scalar function %s has no meaning for one %s", name, d)
	}
	switch d {
	case tensor.F64:
		return g
	case tensor.F32:
		return func(a float64) float64 { return float64(float32(g(a))) }
	}
	return func(a float64) float64 { return scalar.Round(d, g(a)) }
}

func binaryFloat(name string, d tensor.DType) func(a, b float64) float64 {
	g := lookup(name).F2
	if g == nil {
		reject("scalar function %s has no meaning for two %s", name, d)
	}
	if d == tensor.F32 {
		switch name {
		case "add":
			return func(a, b float64) float64 { return float64(float32(a) + float32(b)) }
		case "sub":
			return func(a, b float64) float64 { return float64(float32(a) - float32(b)) }
		case "mul":
			return func(a, b float64) float64 { return float64(float32(a) * float32(b)) }
		}
		return func(a, b float64) float64 { return float64(float32(g(a, b))) }
	}
	if d == tensor.F64 {
		return g
	}
	return func(a, b float64) float64 { return scalar.Round(d, g(a, b)) }
}

func testFloat(name string) func(a, b float64) bool {
	g := lookup(name).FT
	if g == nil {
		reject("scalar function %s is no comparison of floats", name)
	}
	return g
}

func unaryInt(name string, d tensor.DType) func(a int64) int64 {
	g := lookup(name).I1
	if g == nil {
		reject("scalar function %s has no meaning for one %s", name, d)
	}
	return func(a int64) int64 { return scalar.Wrap(d, g(a)) }
}

// binaryInt is a function of operands of type in; the result, of type out, is
// wrapped, or a truth value.
func binaryInt(name string, in, out tensor.DType) func(a, b int64) int64 {
	g := lookup(name)
	unsigned := in.Kind() == tensor.KindUint
	switch {
	case g.UT != nil && unsigned:
		return func(a, b int64) int64 { return truth(g.UT(uint64(a), uint64(b))) }
	case g.IT != nil:
		return func(a, b int64) int64 { return truth(g.IT(a, b)) }
	case g.Shift:
		return shift(name, in, g)
	case g.U2 != nil && unsigned:
		return func(a, b int64) int64 { return scalar.Wrap(out, int64(g.U2(uint64(a), uint64(b)))) }
	case g.I2 != nil && (out == tensor.I64 || out == tensor.U64):
		return g.I2
	case g.I2 != nil:
		return func(a, b int64) int64 { return scalar.Wrap(out, g.I2(a, b)) }
	}
	reject("scalar function %s has no meaning for two %s", name, in)
	return nil
}

func shift(name string, d tensor.DType, g *scalar.Func) func(a, n int64) int64 {
	width := uint64(d.Bits())
	unsigned := d.Kind() == tensor.KindUint && g.U2 != nil
	return func(a, n int64) int64 {
		switch {
		case uint64(n) >= width && name == "shr" && a < 0 && d.Kind() == tensor.KindInt:
			return -1
		case uint64(n) >= width:
			return 0
		case unsigned:
			return scalar.Wrap(d, int64(g.U2(uint64(a), uint64(n))))
		}
		return scalar.Wrap(d, g.I2(a, n))
	}
}
