package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// gridSampleOps sample at positions that are data.
var gridSampleOps = []Op{
	{Name: "GridSample", Since: []int{16, 20, 22}, Expand: expandGridSample},
	{Name: "AffineGrid", Since: []int{20}, Expand: expandAffineGrid},
}

// sampler is one GridSample node.
type sampler struct {
	c       *Ctx
	b       *core.Builder
	mode    string // nearest, linear, cubic
	padding string // zeros, border, reflection
	aligned bool
	sizes   []int // spatial axes of the input
	work    tensor.DType
	rows    *ir.Value // the input as [batch·spatial, channels]
	out     []int     // batch, spatial axes of the output
}

func expandGridSample(c *Ctx) {
	b, x, grid := c.B, c.In(0), c.In(1)
	s := core.Shape(x)
	n := len(s) - 2
	modes := map[string]string{"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}
	def := "bilinear"
	if c.Version >= 20 {
		modes, def = map[string]string{"linear": "linear", "nearest": "nearest", "cubic": "cubic"}, "linear"
	}
	name := c.N.Str("mode", def)
	if modes[name] == "" {
		c.Unsupported("mode=%q", name)
	}
	g := core.Shape(grid)
	if n < 1 || len(g) != n+2 || g[n+1] != n || g[0] != s[0] || c.Version < 20 && n != 2 {
		c.Fail("input %s and grid %s do not fit", x.Type, grid.Type)
	}
	sm := &sampler{c: c, b: b, mode: modes[name], aligned: c.N.Int("align_corners", 0) == 1, sizes: s[2:], work: workType(x.DType()), out: g[:n+1]}
	sm.padding = c.OneOf("padding_mode", c.N.Str("padding_mode", "zeros"), "zeros", "border", "reflection")
	if grid.DType() == tensor.F64 {
		sm.work = tensor.F64
	}
	total := append([]int{}, g[:n+1]...)
	if tensor.Numel(total) == 0 || tensor.Numel(s) == 0 {
		if tensor.Numel(s) == 0 && tensor.Numel(total)*s[1] > 0 {
			c.Fail("nothing to sample: the input is %s", x.Type)
		}
		c.Out(0, b.Const(tensor.New(x.DType(), append([]int{s[0], s[1]}, g[1:n+1]...)...)))
		return
	}
	// Channels last, all pixels of all images in one axis: a pixel is a row.
	perm := []int{0}
	for a := range n {
		perm = append(perm, a+2)
	}
	perm = append(perm, 1)
	sm.rows = b.Reshape(b.Transpose(x, perm...), s[0]*tensor.Numel(s[2:]), s[1])
	coords := make([]*ir.Value, n)
	for a := range n { // the grid names the last axis first
		v := b.Drop(b.SliceAxis(b.Cast(grid, sm.work), n+1, n-1-a, 1), n+1)
		coords[a] = sm.position(v, a)
	}
	y := b.Cast(sm.sum(coords, 0, nil, nil, nil), x.DType())
	back := []int{0, n + 1}
	for a := range n {
		back = append(back, a+1)
	}
	c.Out(0, b.Transpose(y, back...))
}

func (s *sampler) k(v float64) *ir.Value { return s.b.Scalar(s.work, v) }

// borders are where an axis ends for padding.
func (s *sampler) borders(a int) (lo, hi float64) {
	if s.aligned {
		return 0, float64(s.sizes[a] - 1)
	}
	return -0.5, float64(s.sizes[a]) - 0.5
}

// position maps -1…1 to elements of an axis and applies the padding to what
// falls outside.
func (s *sampler) position(v *ir.Value, a int) *ir.Value {
	b, n := s.b, float64(s.sizes[a])
	if s.aligned {
		v = b.Mul(b.Div(b.Add(v, s.k(1)), s.k(2)), s.k(n-1))
	} else {
		v = b.Div(b.Sub(b.Mul(b.Add(v, s.k(1)), s.k(n)), s.k(1)), s.k(2))
	}
	if s.mode == "nearest" {
		v = b.Round(v)
	}
	if s.padding == "zeros" {
		return v
	}
	lo, hi := s.borders(a)
	inside := b.And(b.Le(s.k(lo), v), b.Le(v, s.k(hi)))
	fixed := s.reflect(v, a)
	if s.padding == "border" {
		fixed = b.Max(s.k(0), b.Min(s.k(n-1), v))
	}
	return b.Where(inside, v, fixed)
}

// reflect folds a position back at the borders as often as it takes.
func (s *sampler) reflect(v *ir.Value, a int) *ir.Value {
	b := s.b
	lo, hi := s.borders(a)
	if hi == lo {
		return b.Mul(v, s.k(0))
	}
	span := s.k(hi - lo)
	far := b.Abs(b.Sub(v, s.k(lo)))
	turns := b.Floor(b.Div(far, span))
	rest := b.Sub(far, b.Mul(turns, span))
	odd := b.Eq(b.Binary("mod", turns, s.k(2)), s.k(1))
	return b.Where(odd, b.Sub(s.k(hi), rest), b.Add(s.k(lo), rest))
}

// sum adds up the taps of axes from a on: index, weight and valid are what the
// axes before chose (nil: nothing yet).
func (s *sampler) sum(coords []*ir.Value, a int, index, weight, valid *ir.Value) *ir.Value {
	b := s.b
	if a == len(coords) {
		return s.read(index, weight, valid)
	}
	var bases []float64
	var weights []*ir.Value
	base := coords[a]
	switch s.mode {
	case "nearest":
		bases, weights = []float64{0}, []*ir.Value{nil}
	default:
		base = b.Floor(coords[a])
		f := b.Sub(coords[a], base)
		if s.mode == "linear" {
			bases, weights = []float64{0, 1}, []*ir.Value{b.Sub(s.k(1), f), f}
			break
		}
		bases = []float64{-1, 0, 1, 2}
		weights = s.cubic(f)
	}
	var y *ir.Value
	for k, off := range bases {
		at, ok := s.element(b.Add(base, s.k(off)), a)
		if index != nil {
			at = b.Add(b.Mul(index, b.ScalarInt(tensor.I64, int64(s.sizes[a]))), at)
		}
		t := s.sum(coords, a+1, at, mulOpt(b, weight, weights[k]), andOpt(b, valid, ok))
		if y == nil {
			y = t
		} else {
			y = b.Add(y, t)
		}
	}
	return y
}

func mulOpt(b *core.Builder, x, y *ir.Value) *ir.Value {
	if x == nil || y == nil {
		if x == nil {
			return y
		}
		return x
	}
	return b.Mul(x, y)
}

func andOpt(b *core.Builder, x, y *ir.Value) *ir.Value {
	if x == nil || y == nil {
		if x == nil {
			return y
		}
		return x
	}
	return b.And(x, y)
}

// cubic gives the weights of the four neighbours at distances 1+f, f, 1-f, 2-f.
func (s *sampler) cubic(f *ir.Value) []*ir.Value {
	const a = -0.75
	b := s.b
	poly := func(x *ir.Value, c3, c2, c1, c0 float64) *ir.Value {
		y := b.Add(b.Mul(s.k(c3), x), s.k(c2))
		y = b.Add(b.Mul(y, x), s.k(c1))
		return b.Add(b.Mul(y, x), s.k(c0))
	}
	near := func(x *ir.Value) *ir.Value { return poly(x, a+2, -(a + 3), 0, 1) }
	far := func(x *ir.Value) *ir.Value { return poly(x, a, -5*a, 8*a, -4*a) }
	g := b.Sub(s.k(1), f)
	return []*ir.Value{far(b.Add(f, s.k(1))), near(f), near(g), far(b.Add(g, s.k(1)))}
}

// element turns a whole position into an index of axis a, and says whether it
// exists (nil: always).
func (s *sampler) element(v *ir.Value, a int) (index, valid *ir.Value) {
	b, last := s.b, float64(s.sizes[a]-1)
	switch s.padding {
	case "zeros":
		valid = b.And(b.Le(s.k(0), v), b.Le(v, s.k(last)))
	case "reflection":
		lo, hi := s.borders(a)
		v = b.Where(b.And(b.Le(s.k(lo), v), b.Le(v, s.k(hi))), v, s.reflect(v, a))
	}
	// Min and max of a NaN are NaN: the index is bounded as an integer as well.
	at := b.Cast(b.Max(s.k(0), b.Min(s.k(last), v)), tensor.I64)
	at = b.Max(b.ScalarInt(tensor.I64, 0), b.Min(b.ScalarInt(tensor.I64, int64(last)), at))
	return at, valid
}

// read gives the weighted pixels at an index within each image.
func (s *sampler) read(index, weight, valid *ir.Value) *ir.Value {
	b := s.b
	if s.out[0] > 1 {
		shape := make([]int, len(s.out))
		for i := range shape {
			shape[i] = 1
		}
		shape[0] = s.out[0]
		image := b.Mul(b.Iota(tensor.I64, 0, shape...), b.ScalarInt(tensor.I64, int64(tensor.Numel(s.sizes))))
		index = b.Add(index, image)
	}
	y := b.Cast(b.Gather(s.rows, 0, index), s.work)
	wide := append(append([]int{}, s.out...), 1)
	if weight != nil {
		y = b.Mul(y, b.Reshape(weight, wide...))
	}
	if valid != nil {
		y = b.Where(b.Reshape(valid, wide...), y, s.k(0))
	}
	return y
}

func expandAffineGrid(c *Ctx) {
	b, theta := c.B, c.In(0)
	size := c.Ints(1, "size")
	n := len(size) - 2
	ts := core.Shape(theta)
	if n != 2 && n != 3 || len(ts) != 3 || ts[0] != size[0] || ts[1] != n || ts[2] != n+1 {
		c.Fail("theta %s and size %v do not fit", theta.Type, size)
	}
	if _, err := tensor.Count(size); err != nil {
		c.Fail("size: %v", err)
	}
	aligned := c.N.Int("align_corners", 0) == 1
	if aligned && slices.Contains(size[2:], 1) {
		c.Unsupported("align_corners with an axis of size 1, where it has no meaning,")
	}
	work := workType(theta.DType())
	th := b.Cast(theta, work)
	spread := make([]int, n+2) // [batch, spatial…, coordinate]
	column := func(k int) *ir.Value {
		for i := range spread {
			spread[i] = 1
		}
		spread[0], spread[n+1] = ts[0], n
		return b.Reshape(b.SliceAxis(th, 2, k, 1), spread...)
	}
	y := column(n)
	for k := range n { // coordinate 0 runs along the last axis
		axis := n - 1 - k
		y = b.Add(y, b.Mul(column(k), along(b, b.Const(baseGrid(work, size[2+axis], aligned)), 1+axis, n+2)))
	}
	full := append(append([]int{ts[0]}, size[2:]...), n)
	c.Out(0, b.Cast(b.BroadcastTo(y, full...), theta.DType()))
}

// baseGrid is -1…1 over n elements: at their centres, or from the first to the
// last.
func baseGrid(d tensor.DType, n int, aligned bool) *tensor.Tensor {
	t := tensor.New(d, n)
	for i := range n {
		switch {
		case !aligned:
			t.SetFloat(i, (2*float64(i)+1)/float64(n)-1)
		default:
			t.SetFloat(i, 2*float64(i)/float64(n-1)-1)
		}
	}
	return t
}
