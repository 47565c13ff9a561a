package lower

import (
	"math"
	"math/rand/v2"
	"testing"
)

// mul is the product of two matrices.
func mul(a, b [][]float64) [][]float64 {
	out := make([][]float64, len(a))
	for i := range a {
		out[i] = make([]float64, len(b[0]))
		for j := range b[0] {
			for k := range b {
				out[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return out
}

func transposed(a [][]float64) [][]float64 {
	out := make([][]float64, len(a[0]))
	for i := range out {
		for j := range a {
			out[i] = append(out[i], a[j][i])
		}
	}
	return out
}

func random(r *rand.Rand, rows, cols int) [][]float64 {
	out := make([][]float64, rows)
	for i := range out {
		for range cols {
			out[i] = append(out[i], r.NormFloat64())
		}
	}
	return out
}

// TestWinograd holds that y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A is the correlation of
// d with g at every stride-th place, in float64: the matrices are exact,
// whatever float32 makes of them.
func TestWinograd(t *testing.T) {
	tiles := [][3]int{{1, 1, 1}, {1, 1, 2}, {3, 3, 1}, {2, 7, 2}}
	for of, sizes := range winogradTiles {
		for _, s := range sizes {
			tiles = append(tiles, [3]int{s.m, of[0], of[1]})
		}
	}
	for _, f := range tiles {
		m, taps, stride := f[0], f[1], f[2]
		w := newMinimal(m, taps, stride)
		if w.n != (m-1)*stride+taps || len(w.at) != m || len(w.g) != w.n || len(w.bt) != w.n {
			t.Fatalf("F(%d): matrices of %d, %d and %d rows", m, len(w.at), len(w.g), len(w.bt))
		}
		r := rand.New(rand.NewPCG(uint64(w.n), 5))
		for range 50 {
			g, d := random(r, taps, taps), random(r, w.n, w.n)
			u := mul(mul(w.g, g), transposed(w.g))
			v := mul(mul(w.bt, d), transposed(w.bt))
			for i := range u {
				for j := range u[i] {
					u[i][j] *= v[i][j]
				}
			}
			y := mul(mul(w.at, u), transposed(w.at))
			for i := range m {
				for j := range m {
					want := 0.0
					for a := range taps {
						for b := range taps {
							want += d[i*stride+a][j*stride+b] * g[a][b]
						}
					}
					if math.Abs(y[i][j]-want) > 1e-12 {
						t.Fatalf("F(%d) at %d,%d: %g instead of %g", m, i, j, y[i][j], want)
					}
				}
			}
		}
	}
}

// TestWinogradOfThePaper compares F(2×2) with the matrices of Lavin and Gray, up
// to the scale of a frequency, which may stand in either factor.
func TestWinogradOfThePaper(t *testing.T) {
	w := newMinimal(2, 3, 1)
	at := [][]float64{{1, 1, 1, 0}, {0, 1, -1, 1}}
	g := [][]float64{{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}
	bt := [][]float64{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}}
	for i := range at {
		for j := range at[i] {
			if w.at[i][j] != at[i][j] {
				t.Errorf("Aᵀ[%d][%d] = %g, want %g", i, j, w.at[i][j], at[i][j])
			}
		}
	}
	for f := range g {
		var sg, sb float64 // ours over the paper's
		for i, x := range g[f] {
			if x != 0 {
				sg = w.g[f][i] / x
			}
		}
		for i, x := range bt[f] {
			if x != 0 {
				sb = w.bt[f][i] / x
			}
		}
		if sg*sb != 1 {
			t.Errorf("frequency %d: scales %g and %g", f, sg, sb)
		}
		for i := range g[f] {
			if w.g[f][i] != sg*g[f][i] {
				t.Errorf("G[%d] = %v, want %g times %v", f, w.g[f], sg, g[f])
			}
		}
		for i := range bt[f] {
			if w.bt[f][i] != sb*bt[f][i] {
				t.Errorf("Bᵀ[%d] = %v, want %g times %v", f, w.bt[f], sb, bt[f])
			}
		}
	}
}
