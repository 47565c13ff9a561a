package core

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// contractOps sum products, or slide a reduction. Floats accumulate in float64
// and are rounded once to the result type, integers in int64.
var contractOps = []*Op{
	{Name: "dot", Doc: "operands [B…,M…,K…] in any axis order; attributes lb, rb (batch axes of left and right, paired), lc, rc (contracted axes, paired), out (element type); result batch…, left free…, right free…", Class: Contraction, Infer: inferDot, Eval: evalDot},
	{Name: "conv", Doc: "operands x[N,C,spatial…], w[M,C/groups,kernel…]; attributes strides, dilations, lo, hi (zero padding), xdil (gaps of zeros between elements of x, for transposed convolution), groups, out (element type)", Class: Contraction, Infer: inferConv, Eval: evalConv},
	{Name: "window_max", Doc: "operand x[N,C,spatial…]; attributes kernel, strides, dilations, lo, hi: the maximum of what the window covers (padding is the type's least value)", Class: Window, Infer: inferWindow, Eval: evalWindow},
	{Name: "window_sum", Doc: "as window_max, the sum (padding is 0)", Class: Window, Infer: inferWindow, Eval: evalWindow},
	{Name: "window_argmax", Doc: "as window_max: the row-major position in x[n,c] of the first maximum, int64", Class: Window, Infer: inferWindow, Eval: evalWindow},
}

// DotDims is how the axes of a dot fall into groups.
type DotDims struct {
	LB, RB, LC, RC, LF, RF []int
}

// DotAxes reads the attributes of a dot node.
func DotAxes(n *ir.Node) DotDims {
	d := DotDims{LB: n.Ints("lb"), RB: n.Ints("rb"), LC: n.Ints("lc"), RC: n.Ints("rc")}
	d.LF = rest(n.Inputs[0].Rank(), d.LB, d.LC)
	d.RF = rest(n.Inputs[1].Rank(), d.RB, d.RC)
	return d
}

func rest(rank int, used ...[]int) []int {
	var r []int
	for i := range rank {
		if !slices.Contains(slices.Concat(used...), i) {
			r = append(r, i)
		}
	}
	return r
}

func outType(n *ir.Node) (tensor.DType, error) {
	name := n.Str("out", "")
	if name == "" {
		return n.Inputs[0].DType(), nil
	}
	d, ok := tensor.ParseDType(name)
	if !ok {
		return 0, fmt.Errorf("unknown result type %q", name)
	}
	return d, nil
}

func sizes(shape, axes []int) []int {
	s := make([]int, len(axes))
	for i, a := range axes {
		s[i] = shape[a]
	}
	return s
}

func inferDot(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != 2 {
		return nil, fmt.Errorf("needs two operands")
	}
	l, r := shapeOf(n.Inputs[0]), shapeOf(n.Inputs[1])
	d := DotAxes(n)
	if len(d.LB) != len(d.RB) || len(d.LC) != len(d.RC) ||
		!slices.Equal(sizes(l, d.LB), sizes(r, d.RB)) || !slices.Equal(sizes(l, d.LC), sizes(r, d.RC)) {
		return nil, fmt.Errorf("operands %s and %s do not match on axes %v/%v (batch) and %v/%v (contracted)",
			tensor.ShapeString(l), tensor.ShapeString(r), d.LB, d.RB, d.LC, d.RC)
	}
	if !n.Inputs[0].DType().IsNumeric() || !n.Inputs[1].DType().IsNumeric() {
		return nil, fmt.Errorf("not defined for %s and %s", n.Inputs[0].DType().ONNX(), n.Inputs[1].DType().ONNX())
	}
	t, err := outType(n)
	if err != nil {
		return nil, err
	}
	return []ir.Type{ir.TensorType(t, slices.Concat(sizes(l, d.LB), sizes(l, d.LF), sizes(r, d.RF))...)}, nil
}

func permuted(x *tensor.Tensor, axes ...[]int) *tensor.Tensor {
	perm := slices.Concat(axes...)
	if slices.IsSorted(perm) {
		return x
	}
	st := strides(x.Shape)
	return strided(x, sizes(x.Shape, perm), sizes(st, perm), 0)
}

type number interface{ float32 | float64 | int64 }

// parallel runs f(i) for i in [0,n) on all processors.
func parallel(n int, f func(i int)) {
	w := min(runtime.GOMAXPROCS(0), n)
	if w <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for k := range w {
		wg.Go(func() {
			for i := k; i < n; i += w {
				f(i)
			}
		})
	}
	wg.Wait()
}

// accType picks the type that operands are computed in.
func accType(in []*tensor.Tensor) tensor.DType {
	d := tensor.I64
	for _, x := range in {
		switch {
		case x.DType == tensor.F64:
			return tensor.F64
		case x.DType.IsFloat():
			d = tensor.F32 // exact for every narrower float
		}
	}
	return d
}

func evalDot(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	d := DotAxes(n)
	types, err := inferDot(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(types[0].DType, shape...)
	l, r := in[0], in[1]
	batch := tensor.Numel(sizes(l.Shape, d.LB))
	m, k, c := tensor.Numel(sizes(l.Shape, d.LF)), tensor.Numel(sizes(l.Shape, d.LC)), tensor.Numel(sizes(r.Shape, d.RF))
	a := accType(in)
	lt := tensor.Convert(permuted(l, d.LB, d.LF, d.LC), a)
	rt := tensor.Convert(permuted(r, d.RB, d.RC, d.RF), a)
	switch a {
	case tensor.F32:
		dotAs[float32, float64](lt, rt, batch, m, k, c, func(i int, v float64) { out.SetFloat(i, v) })
	case tensor.F64:
		dotAs[float64, float64](lt, rt, batch, m, k, c, func(i int, v float64) { out.SetFloat(i, v) })
	default:
		dotAs[int64, int64](lt, rt, batch, m, k, c, func(i int, v int64) { out.SetInt(i, v) })
	}
	return []*tensor.Tensor{out}, nil
}

func dotAs[T, A number](lt, rt *tensor.Tensor, batch, m, k, c int, set func(int, A)) {
	l, r := tensor.As[T](lt), tensor.As[T](rt)
	if m >= strip {
		dotProducts(l, r, batch, m, k, c, set)
		return
	}
	parallel(batch*m, func(row int) {
		acc := make([]A, c)
		b := row / m
		for kk := range k {
			x := A(l[row*k+kk])
			if x == 0 && finite(x) {
				// Skipping is exact unless the other side holds Inf or NaN.
				if !anyNonFinite(r[(b*k+kk)*c : (b*k+kk+1)*c]) {
					continue
				}
			}
			for j, y := range r[(b*k+kk)*c : (b*k+kk+1)*c] {
				acc[j] += x * A(y)
			}
		}
		for j, v := range acc {
			set(row*c+j, v)
		}
	})
}

func finite[A number](x A) bool { return x-x == 0 }

func anyNonFinite[T number](v []T) bool {
	for _, x := range v {
		if x-x != 0 {
			return true
		}
	}
	return false
}

// ConvDims is the geometry of a conv or window node.
type ConvDims struct {
	Strides, Dilations, Lo, Hi, XDil, Kernel []int
	Groups                                   int
	Out                                      []int // spatial output sizes
}

// ConvGeometry reads the attributes of a conv or window node over spatial
// sizes x and kernel sizes k, and computes the output sizes.
func ConvGeometry(n *ir.Node, x, k []int) (ConvDims, error) {
	g := ConvDims{Strides: n.Ints("strides"), Dilations: n.Ints("dilations"), Lo: n.Ints("lo"), Hi: n.Ints("hi"), XDil: n.Ints("xdil"), Kernel: k, Groups: n.Int("groups", 1)}
	if g.XDil == nil {
		g.XDil = slices.Repeat([]int{1}, len(x))
	}
	for _, a := range [][]int{g.Strides, g.Dilations, g.Lo, g.Hi, g.XDil, k} {
		if len(a) != len(x) {
			return g, fmt.Errorf("attributes %v for %d spatial axes", a, len(x))
		}
	}
	for i := range x {
		if g.Strides[i] < 1 || g.Dilations[i] < 1 || g.XDil[i] < 1 || k[i] < 1 {
			return g, fmt.Errorf("stride, dilation or kernel below 1 on spatial axis %d", i)
		}
		if g.Lo[i] < 0 || g.Hi[i] < 0 {
			return g, fmt.Errorf("negative padding on spatial axis %d", i)
		}
		in := max((x[i]-1)*g.XDil[i]+1, 0) + g.Lo[i] + g.Hi[i]
		span := (k[i]-1)*g.Dilations[i] + 1
		if in < span {
			return g, fmt.Errorf("kernel spans %d, padded input has %d on spatial axis %d", span, in, i)
		}
		g.Out = append(g.Out, (in-span)/g.Strides[i]+1)
	}
	return g, nil
}

func convGeometry(n *ir.Node) (ConvDims, error) {
	x, w := shapeOf(n.Inputs[0]), shapeOf(n.Inputs[1])
	if len(x) < 2 || len(w) != len(x) {
		return ConvDims{}, fmt.Errorf("operands %s and %s", n.Inputs[0].Type, n.Inputs[1].Type)
	}
	g, err := ConvGeometry(n, x[2:], w[2:])
	if err != nil {
		return g, err
	}
	if g.Groups < 1 || x[1] != w[1]*g.Groups || w[0]%g.Groups != 0 {
		return g, fmt.Errorf("%d input channels, weights for %d × %d groups, %d outputs", x[1], w[1], g.Groups, w[0])
	}
	return g, nil
}

func inferConv(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != 2 {
		return nil, fmt.Errorf("needs two operands")
	}
	if !n.Inputs[0].DType().IsNumeric() || !n.Inputs[1].DType().IsNumeric() {
		return nil, fmt.Errorf("not defined for %s and %s", n.Inputs[0].DType().ONNX(), n.Inputs[1].DType().ONNX())
	}
	g, err := convGeometry(n)
	if err != nil {
		return nil, err
	}
	t, err := outType(n)
	if err != nil {
		return nil, err
	}
	s := append([]int{shapeOf(n.Inputs[0])[0], shapeOf(n.Inputs[1])[0]}, g.Out...)
	if _, err := tensor.Count(s); err != nil {
		return nil, err
	}
	return []ir.Type{ir.TensorType(t, s...)}, nil
}

func evalConv(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	g, err := convGeometry(n)
	if err != nil {
		return nil, err
	}
	types, err := inferConv(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(types[0].DType, shape...)
	a := accType(in)
	x, w := tensor.Convert(in[0], a), tensor.Convert(in[1], a)
	switch a {
	case tensor.F32:
		convAs[float32, float64](g, x, w, out, func(i int, v float64) { out.SetFloat(i, v) })
	case tensor.F64:
		convAs[float64, float64](g, x, w, out, func(i int, v float64) { out.SetFloat(i, v) })
	default:
		convAs[int64, int64](g, x, w, out, func(i int, v int64) { out.SetInt(i, v) })
	}
	return []*tensor.Tensor{out}, nil
}

// tap is one kernel position along the outer spatial axes: which input row an
// output row reads, or none.
func (g ConvDims) source(axis, o, k, size int) int {
	p := o*g.Strides[axis] + k*g.Dilations[axis] - g.Lo[axis]
	if p < 0 || p%g.XDil[axis] != 0 || p/g.XDil[axis] >= size {
		return -1
	}
	return p / g.XDil[axis]
}

func convAs[T, A number](g ConvDims, xt, wt, out *tensor.Tensor, set func(int, A)) {
	x, w := tensor.As[T](xt), tensor.As[T](wt)
	xs, ws := xt.Shape[2:], wt.Shape[2:]
	nsp := len(xs)
	cpg, mpg := wt.Shape[1], wt.Shape[0]/g.Groups
	xn, wn, on := tensor.Numel(xs), tensor.Numel(ws), tensor.Numel(g.Out)
	if on == 0 {
		return
	}
	if mpg > 1 && cpg*wn > 0 && !anyNonFinite(w) { // padding is skipped, not multiplied
		convProducts[T, A](g, xt, wt, out, set)
		return
	}
	row := 1 // the innermost spatial axis is done as a row
	if nsp > 0 {
		row = g.Out[nsp-1]
	}
	parallel(out.Shape[0]*out.Shape[1], func(nm int) {
		n, m := nm/wt.Shape[0], nm%wt.Shape[0]
		c0 := m / mpg * cpg
		acc := make([]A, row)
		oidx, kidx := make([]int, nsp), make([]int, nsp)
		for r := range on / row {
			unflatten(r*row, g.Out, oidx)
			clear(acc)
			for k := range wn {
				unflatten(k, ws, kidx)
				base, ok := 0, true
				for a := 0; a < nsp-1; a++ {
					s := g.source(a, oidx[a], kidx[a], xs[a])
					if ok = s >= 0; !ok {
						break
					}
					base = base*xs[a] + s
				}
				if !ok {
					continue
				}
				for c := range cpg {
					wv := A(w[(m*cpg+c)*wn+k])
					xb := x[(n*xt.Shape[1]+c0+c)*xn:]
					if nsp == 0 {
						acc[0] += wv * A(xb[0])
						continue
					}
					last := nsp - 1
					g.row(last, kidx[last], xs[last], func(o, s int) { acc[o] += wv * A(xb[base*xs[last]+s]) })
				}
			}
			for i, v := range acc {
				set(nm*on+r*row+i, v)
			}
		}
	})
}

// row calls f for the output positions of an axis that read a real element.
func (g ConvDims) row(axis, k, size int, f func(o, s int)) {
	off := k*g.Dilations[axis] - g.Lo[axis]
	st := g.Strides[axis]
	if g.XDil[axis] == 1 {
		o := 0
		if off < 0 {
			o = (-off + st - 1) / st
		}
		for ; o < g.Out[axis]; o++ {
			s := o*st + off
			if s >= size {
				break
			}
			f(o, s)
		}
		return
	}
	for o := range g.Out[axis] {
		if s := g.source(axis, o, k, size); s >= 0 {
			f(o, s)
		}
	}
}

func unflatten(i int, shape, idx []int) {
	for a := len(shape) - 1; a >= 0; a-- {
		idx[a] = i % shape[a]
		i /= shape[a]
	}
}

func windowGeometry(n *ir.Node) (ConvDims, error) {
	x := shapeOf(n.Inputs[0])
	if len(x) < 2 {
		return ConvDims{}, fmt.Errorf("operand %s has no spatial axes", n.Inputs[0].Type)
	}
	return ConvGeometry(n, x[2:], n.Ints("kernel"))
}

func inferWindow(n *ir.Node) ([]ir.Type, error) {
	g, err := windowGeometry(n)
	if err != nil {
		return nil, err
	}
	d := n.Inputs[0].DType()
	if !d.IsNumeric() {
		return nil, fmt.Errorf("not defined for %s", d.ONNX())
	}
	if n.Op == "window_argmax" {
		d = tensor.I64
	}
	return []ir.Type{ir.TensorType(d, append(slices.Clone(shapeOf(n.Inputs[0])[:2]), g.Out...)...)}, nil
}

func evalWindow(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	g, err := windowGeometry(n)
	if err != nil {
		return nil, err
	}
	types, err := inferWindow(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(types[0].DType, shape...)
	x := in[0]
	xs := x.Shape[2:]
	xn, on, kn := tensor.Numel(xs), tensor.Numel(g.Out), tensor.Numel(g.Kernel)
	least := Identity("reduce_max", x.DType)
	parallel(out.Shape[0]*out.Shape[1], func(nc int) {
		oidx, kidx := make([]int, len(xs)), make([]int, len(xs))
		for o := range on {
			unflatten(o, g.Out, oidx)
			best, pos := -1, int64(0)
			sum, isum := 0.0, int64(0)
			for k := range kn {
				unflatten(k, g.Kernel, kidx)
				at := 0
				for a := range xs {
					s := g.source(a, oidx[a], kidx[a], xs[a])
					if s < 0 {
						at = -1
						break
					}
					at = at*xs[a] + s
				}
				if at < 0 {
					continue
				}
				i := nc*xn + at
				switch {
				case n.Op != "window_sum":
					if best < 0 || order(x, i, best) > 0 || isNaN(x, i) {
						best, pos = i, int64(at)
					}
				case x.DType.IsFloat():
					sum += x.Float(i)
				default:
					isum += x.Int(i)
				}
			}
			to := nc*on + o
			switch {
			case n.Op == "window_argmax":
				out.SetInt(to, pos)
			case n.Op == "window_max" && best < 0:
				pickOne(least, 0, out, to)
			case n.Op == "window_max":
				pickOne(x, best, out, to)
			case x.DType.IsFloat():
				out.SetFloat(to, sum)
			default:
				out.SetInt(to, isum)
			}
		}
	})
	return []*tensor.Tensor{out}, nil
}

func isNaN(x *tensor.Tensor, i int) bool { return x.DType.IsFloat() && math.IsNaN(x.Float(i)) }

func pickOne(x *tensor.Tensor, i int, out *tensor.Tensor, to int) {
	if x.DType.IsFloat() {
		out.SetFloat(to, x.Float(i))
		return
	}
	out.SetInt(to, x.Int(i))
}
