package lower

import (
	"github.com/lathe-ml/lathe/compiler/precision"
)

// Winograd's minimal filtering F(m, r): m outputs of a filter of r taps cost
// m+r-1 products instead of m·r, along each axis (Lavin and Gray, arXiv
// 1509.09308). The matrices come from the Cook-Toom construction over the points
// below; ½ and −2 instead of ±2 keep the error near that of the direct sum.

// winogradPoints are the finite points by their number, which is m+r-2.
var winogradPoints = map[int][]float64{
	0: {},
	2: {0, -1},
	3: {0, 1, -1},
	4: {0, 1, -1, 0.5},
	5: {0, 1, -1, 0.5, -2},
	7: {0, 1, -1, 0.5, -0.5, 2, -2},
}

// winogradTile is a size of tiles, and the precision that it needs.
type winogradTile struct {
	m     int
	plane precision.Mode // both axes
	line  precision.Mode // one axis
}

// winogradTiles are the tiles by the number of taps and the stride: the error
// grows with the number of points, and with the number of axes.
var winogradTiles = map[[2]int][]winogradTile{
	{2, 1}: {{3, precision.F32, precision.F32}, {4, precision.F32, precision.F32}},
	{3, 1}: {{2, precision.F32, precision.F32}, {4, precision.F32, precision.F32}, {6, precision.Fast, precision.F32}},
	{5, 1}: {{2, precision.F32, precision.F32}, {4, precision.Fast, precision.F32}},
	{7, 1}: {{2, precision.Fast, precision.F32}},
	{3, 2}: {{2, precision.F32, precision.F32}, {3, precision.F32, precision.F32}, {4, precision.F32, precision.F32}},
	{4, 2}: {{3, precision.F32, precision.F32}},
	{5, 2}: {{2, precision.F32, precision.F32}},
}

// minimal are the matrices of one axis: y = Aᵀ[(G·g) ⊙ (Bᵀ·d)].
type minimal struct {
	m, r, n   int
	at, g, bt [][]float64 // m×n, n×r, n×n
}

// newMinimal gives the form of r taps, stride apart, for m outputs. Of every
// stride-th tap and the inputs that those meet, each remainder is a filter of
// stride one, and the outputs are the sums over all: products of their own,
// s·(m−1) + r together, which is also how many inputs there are.
func newMinimal(m, r, stride int) minimal {
	w := minimal{m: m, r: r, n: stride*(m-1) + r, at: make([][]float64, m)}
	for p := range min(stride, r) {
		f := newFilter(m, (r-p+stride-1)/stride)
		for i, row := range f.at {
			w.at[i] = append(w.at[i], row...)
		}
		for j := range f.n {
			w.g = append(w.g, spread(f.g[j], p, stride, r))
			w.bt = append(w.bt, spread(f.bt[j], p, stride, w.n))
		}
	}
	return w
}

// spread puts coefficients at every stride-th place of n, from first on.
func spread(c []float64, first, stride, n int) []float64 {
	out := make([]float64, n)
	for i, v := range c {
		out[first+i*stride] = v
	}
	return out
}

// newFilter gives F(m, r); for one tap it is the identity.
func newFilter(m, r int) minimal {
	n := m + r - 1
	w := minimal{m: m, r: r, n: n}
	if r == 1 {
		for i := range m {
			unit := spread([]float64{1}, i, 1, m)
			w.at, w.g, w.bt = append(w.at, unit), append(w.g, []float64{1}), append(w.bt, unit)
		}
		return w
	}
	p := winogradPoints[n-1]
	for i := range m {
		row := make([]float64, n)
		for j, a := range p {
			row[j] = power(a, i)
		}
		if i == m-1 {
			row[n-1] = 1
		}
		w.at = append(w.at, row)
	}
	for j, a := range p {
		norm := 1.0
		for l, b := range p {
			if l != j {
				norm *= a - b
			}
		}
		row := make([]float64, r)
		for x := range row {
			row[x] = power(a, x) / norm
		}
		w.g = append(w.g, row)
		w.bt = append(w.bt, product(p, j, n))
	}
	last := make([]float64, r)
	last[r-1] = 1
	w.g = append(w.g, last)
	w.bt = append(w.bt, product(p, -1, n))
	return w
}

// winograd is the form of a kernel: rows and columns, of which one may be plain.
type winograd struct{ h, w minimal }

// freqs is the number of products per tile.
func (w winograd) freqs() int { return w.h.n * w.w.n }

// minimalTile gives the size of an axis' tile: m where the kernel has taps.
func minimalTile(m, taps int) int {
	if taps == 1 {
		return 1
	}
	return m
}

// winograd gives the matrices for tiles of m outputs; for 0 those of one tap.
func (c *tiledConv) winograd(m int) winograd {
	if m == 0 {
		return winograd{newMinimal(1, 1, 1), newMinimal(1, 1, 1)}
	}
	axis := func(a int) minimal { return newMinimal(minimalTile(m, c.Kernel[a]), c.Kernel[a], c.Strides[a]) }
	return winograd{axis(0), axis(1)}
}

func power(a float64, k int) float64 {
	r := 1.0
	for range k {
		r *= a
	}
	return r
}

// product gives the coefficients of the product of (x − p_l), without p[skip].
func product(p []float64, skip, n int) []float64 {
	c := make([]float64, n)
	c[0] = 1
	deg := 0
	for l, a := range p {
		if l == skip {
			continue
		}
		deg++
		for i := deg; i >= 0; i-- {
			c[i] *= -a
			if i > 0 {
				c[i] += c[i-1]
			}
		}
	}
	return c
}
