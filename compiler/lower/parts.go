package lower

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// A matrix unit multiplies bfloat16 values, of 8 significant bits. Products of
// F32 values become several of those: a number is a sum of parts, each of which
// is what is left of it rounded to bfloat16. Two parts have 16 bits, three all
// 24. The parts of a value are planes of scratch, those of a weight are made when
// it is compiled, and each step of a product sums the products of parts that
// matter.

// partTerms are the parts of X and of W that are multiplied, by the number of
// parts: all whose product is not below the error of the form. The order is that
// in which a unit with few registers loads least.
var partTerms = [...][][2]int{
	1: {{0, 0}},
	2: {{1, 0}, {0, 0}, {0, 1}},
	3: {{2, 0}, {1, 0}, {0, 0}, {0, 1}, {0, 2}, {1, 1}},
}

// The layout of operands of a matrix unit: sums run over blocks of unitSteps
// channels, and W has unitW elements for such a block and a vector of outputs.
const (
	unitSteps = 2 * loop.MatrixLanes
	unitW     = unitSteps * loop.MatrixLanes
)

// unitKind is what a matrix unit multiplies for a convolution: bytes as they are,
// or parts of numbers.
func (c *tiledConv) unitKind() loop.TileKind {
	if c.kind == loop.TileU8S8 {
		return loop.TileU8S8
	}
	return loop.TileBF16
}

// unitK is how many channels the unit sums at once: 64 bytes of them.
func (c *tiledConv) unitK() int { return c.unitKind().Group() * loop.MatrixLanes }

// unitWidth is how many blocks of channels that is.
func (c *tiledConv) unitWidth() int { return c.unitK() / loop.MatrixLanes }

// unitTile is how many weights such a block has for a vector of outputs.
func (c *tiledConv) unitTile() int { return c.unitK() * loop.MatrixLanes }

// unitBlocks is the number of such blocks in so many blocks of channels.
func (c *tiledConv) unitBlocks(icb int) int {
	return (icb + c.unitWidth() - 1) / c.unitWidth()
}

// partsOf are the parts of a number.
func partsOf(f float64, parts int) [3]uint16 {
	var out [3]uint16
	for i := range parts {
		out[i] = tensor.BF16FromFloat64(f)
		f -= float64(math.Float32frombits(uint32(out[i]) << 16))
	}
	return out
}

// The guard of products of parts. What the unit cannot do as F32 does is this:
//
// Infinities, NaN, and what rounds to an infinity. The first part of such an
// element is ±∞ or NaN, and the second is NaN or the infinity of the other sign.
// Every sum has both with a first part of a weight: ∞·w and −∞·w are NaN
// together, and with w = 0 each is. So such a sum is NaN, and visible.
//
// Overflow of a product or sum is visible too.
//
// Numbers below 2^-126. The unit takes them for zero, and gives zero instead of
// them. Weights with 0 < |w| < 2^-100 do not take part, so that no part of a
// weight is such a number: the last bit of w is 2^-123. Of elements with
// |x| >= 2^-60 no part is one either. Then only sums are lost, less than 2^-126
// at each of the 6 steps of the K terms: an absolute error below 6K·2^-126. Of
// elements with |x| < 2^-60 each of 3 parts may be lost, 3·2^-126·max|w| for each
// term. Both are below 2^-24 of a sum that is at least smallest(K, max|w|). So
// chunks are searched for elements with 0 < |x| < 2^-60, and of those that have
// one the sums below that limit are not trusted.
//
// A tile with a sum that is not finite or not trusted is computed once more in
// the direct form.
const (
	leastWeight = 0x1p-100
	mostWeight  = 0x1p60
	leastInput  = 0x1p-60
	// leastTransformed is the same for weights that are transformed first: what a
	// sum in float64 leaves of them is 0 or 2^-53 of them.
	leastTransformed = 0x1p-40
)

// smallest is the least sum of so many terms that is trusted, for weights of up
// to so much.
func smallest(terms int, most float64) float64 {
	return float64(terms) * (6 + 3*most) * 0x1p-102
}

// trusts reports whether all weights that are not 0 have a size between least
// and limit, and which is the largest.
func trusts(w *tensor.Tensor, least, limit float64) (most float64, ok bool) {
	for _, f := range tensor.As[float32](w) {
		a := math.Abs(float64(f))
		if !(a <= limit) || a > 0 && a < least {
			return 0, false
		}
		most = max(most, a)
	}
	return most, true
}

// partOfValue is a part of a value that is computed by itself.
func partOfValue(x *loop.Expr, part int) *loop.Expr {
	for range part {
		x = loop.Fn("sub", x, loop.To(tensor.F32, loop.To(tensor.BF16, x)))
	}
	return loop.To(tensor.BF16, x)
}

// splitter makes statements that store vectors of F32 as parts, and note what is
// too small for them; bytes are stored as they are.
type splitter struct {
	*kb
	parts int
	to    *loop.Buffer // the planes of parts
	plane int          // elements of one
	tiny  *loop.Reg    // the least of 2|x| in bits, of x that are not 0, less one; nil: no guard
}

// store writes the elements x(l) of a vector of n as parts, from at on.
func (s *splitter) store(at *loop.Expr, n int, x func(l *loop.Expr) *loop.Expr) []loop.Stmt {
	var out []loop.Stmt
	for i := range s.parts {
		l := s.fresh("l", n)
		to := loop.Add(at, loop.V(l))
		val := x(loop.V(l))
		for j := range i {
			val = loop.Fn("sub", val, loop.To(tensor.F32, loop.At(s.to, loop.Add(to, loop.Int(j*s.plane)))))
		}
		out = append(out, loop.Nest([]*loop.Var{l}, []loop.LoopKind{loop.Vector},
			&loop.Store{Buf: s.to, Index: loop.Add(to, loop.Int(i*s.plane)), Val: loop.To(s.to.Type, val)})...)
	}
	return out
}

// begin declares what is noted.
func (s *splitter) begin() []loop.Stmt {
	if s.parts < 2 {
		return nil
	}
	s.tiny = s.reg("tiny", tensor.U32)
	return []loop.Stmt{&loop.Set{Reg: s.tiny, Val: loop.Number(tensor.U32, 0, math.MaxUint32), Decl: true}}
}

// note looks at n elements x(v).
func (s *splitter) note(n int, x func(v *loop.Expr) *loop.Expr) []loop.Stmt {
	if s.tiny == nil {
		return nil
	}
	v := s.fresh("v", n)
	val := loop.Fn("sub", doubled(x(loop.V(v))), loop.Number(tensor.U32, 0, 1)) // 0 becomes the largest
	return loop.Nest([]*loop.Var{v}, []loop.LoopKind{loop.Vector}, &loop.Accum{Reg: s.tiny, Fn: "min", Val: val})
}

// limit declares a register that is the least trusted sum: 0 unless something
// small was noted.
func (s *splitter) limit(least float64) (*loop.Reg, []loop.Stmt) {
	if s.tiny == nil {
		return nil, nil
	}
	r := s.reg("least", tensor.F32)
	small := loop.Fn("lt", loop.R(s.tiny), loop.Number(tensor.U32, 0, int64(math.Float32bits(leastInput))<<1-1))
	return r, []loop.Stmt{&loop.Set{Reg: r, Val: loop.If(small, loop.Number(tensor.F32, least, 0), loop.Number(tensor.F32, 0, 0)), Decl: true}}
}

// doubled are the bits of |x| moved up by one, which order as |x| does.
func doubled(x *loop.Expr) *loop.Expr {
	return loop.Fn("shl", loop.Reinterpret(tensor.U32, x), loop.Number(tensor.U32, 0, 1))
}

// distrusts is the condition under which one of n sums s(v) is not finite, or
// less than the limit, and the statements before it.
func (k *kb) distrusts(n int, limit *loop.Reg, s func(v *loop.Expr) *loop.Expr) ([]loop.Stmt, *loop.Expr) {
	top, low, v := k.reg("top", tensor.U32), k.reg("low", tensor.U32), k.fresh("v", n)
	x := doubled(s(loop.V(v)))
	body := []loop.Stmt{
		&loop.Set{Reg: top, Val: loop.Number(tensor.U32, 0, 0), Decl: true},
		&loop.Set{Reg: low, Val: loop.Number(tensor.U32, 0, math.MaxUint32), Decl: true},
		&loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Accum{Reg: top, Fn: "max", Val: x},
			&loop.Accum{Reg: low, Fn: "min", Val: x},
		}},
	}
	infinite := loop.Fn("le", loop.Number(tensor.U32, 0, int64(math.Float32bits(float32(math.Inf(1))))<<1), loop.R(top))
	return body, loop.Fn("or", infinite, loop.Fn("lt", loop.R(low), doubled(loop.R(limit))))
}

// runs says how points in a row are cut for tiles of one or two runs of as many
// rows: as few tiles as there can be, and the last ends with the points.
func runs(points int) (rows int) {
	n := (points + loop.MatrixLanes - 1) / loop.MatrixLanes
	return (points + n - 1) / n
}

// run is a tile's part of the points: count tiles of it begin at `at` and next to
// each other; the second run begins gap after the first.
type run struct {
	at   *loop.Expr
	runs int
	gap  int
	// fresh are the points that no tile before has: from skip[i] on in run i.
	skip [2]int
}

// overRuns makes the tiles of some points, f those of one.
func (k *kb) overRuns(points, rows int, f func(r run) []loop.Stmt) []loop.Stmt {
	var body []loop.Stmt
	pair := 2 * rows
	if full := points / pair; full > 0 {
		x := k.fresh("x", full)
		body = loop.Nest([]*loop.Var{x}, []loop.LoopKind{loop.Serial}, f(run{at: loop.Mul(loop.V(x), pair), runs: 2, gap: rows})...)
	}
	switch rest := points % pair; {
	case rest > rows:
		body = append(body, f(run{at: loop.Int(points - rest), runs: 2, gap: rest - rows, skip: [2]int{0, pair - rest}})...)
	case rest > 0:
		body = append(body, f(run{at: loop.Int(points - rows), runs: 1, skip: [2]int{rows - rest}})...)
	}
	return body
}

// offsets are where the points of a tile lie, step apart.
func (r run) offsets(rows, step int) (out []int) {
	for i := range r.runs {
		for p := range rows {
			out = append(out, (i*r.gap+p)*step)
		}
	}
	return out
}

// stretch is points of a tile that lie side by side: n of them, of which the
// first is point `first` of the tile and at `at` among all.
type stretch struct {
	first, n int
	at       *loop.Expr
}

// stretches are the points of a tile that no other has.
func (r run) stretches(rows int) []stretch {
	if r.runs == 2 && r.gap == rows {
		return []stretch{{0, 2 * rows, r.at}}
	}
	var out []stretch
	for i := range r.runs {
		skip := r.skip[i]
		out = append(out, stretch{i*rows + skip, rows - skip, loop.Add(r.at, loop.Int(i*r.gap+skip))})
	}
	return out
}
