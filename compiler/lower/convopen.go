package lower

// A model's input has no halo, and one of few channels is copied into one for
// longer than its edges take as tiles of their own: a few rows and columns of
// points, which leave out the taps that read padding.

// opens reports whether edges can be tiles of their own: every point reads some
// of the map, which is size.
func (c *tiledConv) opens(size []int) bool {
	// From beyond the second cache a copy, which reads it as one stream, brings a
	// map sooner than tiles, which read many rows.
	const near = 640 << 10 // numbers
	if c.ic*size[0]*size[1] > near {
		return false
	}
	padded := false
	for a, n := range size {
		padded = padded || c.Lo[a]+c.Hi[a] > 0
		lead, trail := c.edges(a, n)
		if c.Dilations[a] != 1 || c.Lo[a] >= c.Kernel[a] || (c.Out[a]-1)*c.Strides[a]-c.Lo[a] >= n || 4*(lead+trail) > c.Out[a] {
			return false
		}
	}
	return padded
}

// edges are how many points along an axis of a map reach beyond its begin and
// its end.
func (c *tiledConv) edges(axis, size int) (lead, trail int) {
	s, lo, k, n := c.Strides[axis], c.Lo[axis], c.Kernel[axis], c.Out[axis]
	for lead < n && lead*s < lo {
		lead++
	}
	for trail < n-lead && (n-1-trail)*s-lo+k > size {
		trail++
	}
	return lead, trail
}

// openSpans are spans of a map without halo: each point at an edge is one.
func (t *convTile) openSpans(axis, step int) []tileRun {
	lead, trail := t.edges(axis, t.x.layout.Shape[2+axis])
	n, all := t.Out[axis]-lead-trail, taps{0, t.Kernel[axis]}
	var out []tileRun
	for p := range lead {
		out = append(out, tileRun{p, 1, 1, t.reached(axis, p, 1)})
	}
	if full := n / step; full > 0 {
		out = append(out, tileRun{lead, full, step, all})
	}
	if rest := n % step; rest > 0 {
		out = append(out, tileRun{lead + n - rest, 1, rest, all})
	}
	for p := lead + n; p < t.Out[axis]; p++ {
		out = append(out, tileRun{p, 1, 1, t.reached(axis, p, 1)})
	}
	return out
}
