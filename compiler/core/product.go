package core

import "github.com/lathe-ml/lathe/compiler/tensor"

// The evaluator is the oracle of every backend, so it should not be slow:
// contractions with more than a few rows run as products of packed matrices,
// in registers, with the same wide accumulators as the plain loops.

// strip is how many columns of a packed matrix lie together.
const strip = 4

// products calls set for each i, j with Σ a[i,t]·b[t,j]. b is packed: strips of
// four columns, each k rows of four.
func products[A number](a []A, m, k int, b []A, n int, set func(i, j int, v A)) {
	for j := 0; j < n; j += strip {
		col := b[j*k : (j+strip)*k]
		last := min(n-j, strip)
		for i := 0; i < m; i += 2 {
			x := a[i*k : (i+1)*k]
			y := x // the last row of an odd count is done twice
			if i+1 < m {
				y = a[(i+1)*k : (i+2)*k]
			}
			s, t := twoRows(x, y, col)
			for c := range last {
				set(i, j+c, s[c])
				if i+1 < m {
					set(i+1, j+c, t[c])
				}
			}
		}
	}
}

func twoRows[A number](x, y, col []A) (s, t [strip]A) {
	var s0, s1, s2, s3, t0, t1, t2, t3 A
	y = y[:len(x)]
	for i, v := range x {
		c := (*[strip]A)(col)
		col = col[strip:]
		w := y[i]
		s0 += v * c[0]
		s1 += v * c[1]
		s2 += v * c[2]
		s3 += v * c[3]
		t0 += w * c[0]
		t1 += w * c[1]
		t2 += w * c[2]
		t3 += w * c[3]
	}
	return [strip]A{s0, s1, s2, s3}, [strip]A{t0, t1, t2, t3}
}

func wideOf[T number, A number](v []T) []A {
	w := make([]A, len(v))
	for i, x := range v {
		w[i] = A(x)
	}
	return w
}

// tileOf is how many columns are packed at a time: about a megabyte, whole
// strips.
func tileOf(k, n int) int {
	t := min(max(1<<17/max(k, 1), 16), 256, n+strip-1)
	return max(t/strip, 1) * strip
}

func dotProducts[T number, A number](l, r []T, batch, m, k, c int, set func(int, A)) {
	left := wideOf[T, A](l)
	tile := tileOf(k, c)
	tiles := (c + tile - 1) / tile
	parallel(batch*tiles, func(job int) {
		b, from := job/tiles, job%tiles*tile
		n := min(tile, c-from)
		packed := make([]A, tile*k)
		for t := range k {
			row := r[(b*k+t)*c+from:][:n]
			for j, v := range row {
				packed[j/strip*strip*k+t*strip+j%strip] = A(v)
			}
		}
		products(left[b*m*k:(b+1)*m*k], m, k, packed, n, func(i, j int, v A) { set((b*m+i)*c+from+j, v) })
	})
}

func convProducts[T number, A number](g ConvDims, xt, wt, out *tensor.Tensor, set func(int, A)) {
	x, w := tensor.As[T](xt), wideOf[T, A](tensor.As[T](wt))
	xs, ws := xt.Shape[2:], wt.Shape[2:]
	cpg, mpg := wt.Shape[1], wt.Shape[0]/g.Groups
	xn, taps, on := tensor.Numel(xs), tensor.Numel(ws), tensor.Numel(g.Out)
	k := cpg * taps
	tile := tileOf(k, on)
	tiles := (on + tile - 1) / tile
	parallel(xt.Shape[0]*g.Groups*tiles, func(job int) {
		n, group, from := job/tiles/g.Groups, job/tiles%g.Groups, job%tiles*tile
		cols := min(tile, on-from)
		packed := make([]A, tile*k)
		image := x[(n*xt.Shape[1]+group*cpg)*xn:]
		oidx, kidx := make([]int, len(xs)), make([]int, len(xs))
		for j := range cols {
			unflatten(from+j, g.Out, oidx)
			col := packed[j/strip*strip*k+j%strip:]
			for t := range taps {
				unflatten(t, ws, kidx)
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
				for c := range cpg {
					col[(c*taps+t)*strip] = A(image[c*xn+at])
				}
			}
		}
		first := n*wt.Shape[0] + group*mpg
		products(w[group*mpg*k:(group+1)*mpg*k], mpg, k, packed, cols, func(i, j int, v A) { set((first+i)*on+from+j, v) })
	})
}
