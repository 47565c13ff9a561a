package geometry

import "fmt"

// A Split says how tensor parallelism cuts a logical tensor. The zero value
// with Dim 0 cuts rows evenly.
type Split struct {
	Dim int
	// Sub are the sizes along Dim of fused sub-parameters (query, key and value;
	// gate and up), each of which is cut on its own. Empty means one.
	Sub []Sub
	// Pad is the size along Dim that the tensor is padded to before it is cut
	// (vocabulary padding); 0 means none.
	Pad int64
}

// A Sub is one of several parameters fused along the cut dimension.
type Sub struct {
	Size int64
	// Widths, if given, are the sizes on each rank; else the ranks share evenly.
	Widths []int64
	// Heads, if given, is the number of indivisible blocks (key/value heads).
	// With fewer heads than ranks each head is held by several ranks.
	Heads int64
}

// Views gives the view of each of tp ranks on a logical tensor of this shape.
func (s Split) Views(shape []int64, tp int) ([]View, error) {
	if s.Dim < 0 || s.Dim >= len(shape) {
		return nil, fmt.Errorf("cannot cut dimension %d of shape %v", s.Dim, shape)
	}
	subs := s.Sub
	if len(subs) == 0 {
		subs = []Sub{{Size: shape[s.Dim]}}
	}
	total := int64(0)
	for _, b := range subs {
		total += b.Size
	}
	if total != shape[s.Dim] {
		return nil, fmt.Errorf("sub-parameters of %d in all do not fill dimension %d of shape %v", total, s.Dim, shape)
	}
	pad := int64(0)
	if s.Pad > total {
		pad = s.Pad - total
	}
	views := make([]View, tp)
	for r := range views {
		v, err := s.rank(shape, subs, pad, r, tp)
		if err != nil {
			return nil, err
		}
		views[r] = v
	}
	return views, nil
}

func (s Split) rank(shape []int64, subs []Sub, pad int64, r, tp int) (View, error) {
	v := View{Global: shape, Local: append([]int64(nil), shape...)}
	local, global := int64(0), int64(0)
	for i, b := range subs {
		size := b.Size
		if i == len(subs)-1 {
			size += pad
		}
		off, n, err := b.piece(size, r, tp)
		if err != nil {
			return View{}, fmt.Errorf("dimension %d of shape %v: %w", s.Dim, shape, err)
		}
		if real := min(off+n, b.Size) - off; real > 0 {
			p := Part{make([]int64, len(shape)), make([]int64, len(shape)), append([]int64(nil), shape...)}
			p.Local[s.Dim], p.Global[s.Dim], p.Size[s.Dim] = local, global+off, real
			v.Parts = append(v.Parts, p)
		}
		local += n
		global += b.Size
	}
	v.Local[s.Dim] = local
	return v, nil
}

// piece gives the offset and length of rank r's share of a sub-parameter.
func (b Sub) piece(size int64, r, tp int) (off, n int64, err error) {
	switch {
	case len(b.Widths) > 0:
		if len(b.Widths) != tp {
			return 0, 0, fmt.Errorf("%d widths are given for %d tensor-parallel ranks", len(b.Widths), tp)
		}
		sum := int64(0)
		for i, w := range b.Widths {
			if w < 0 {
				return 0, 0, fmt.Errorf("width %d is negative", w)
			}
			if i < r {
				off += w
			}
			sum += w
		}
		if sum != size {
			return 0, 0, fmt.Errorf("widths %v do not add up to %d", b.Widths, size)
		}
		return off, b.Widths[r], nil
	case b.Heads > 0:
		return b.heads(size, r, tp)
	case size%int64(tp) != 0:
		return 0, 0, fmt.Errorf("%d cannot be shared evenly by %d tensor-parallel ranks (give widths)", size, tp)
	}
	n = size / int64(tp)
	return int64(r) * n, n, nil
}

// heads shares whole heads; where there are fewer heads than ranks, consecutive
// ranks hold copies of one head, as grouped-query attention does.
func (b Sub) heads(size int64, r, tp int) (off, n int64, err error) {
	if size%b.Heads != 0 {
		return 0, 0, fmt.Errorf("%d elements are no whole number of %d heads", size, b.Heads)
	}
	width, t := size/b.Heads, int64(tp)
	switch {
	case b.Heads >= t && b.Heads%t == 0:
		n = size / t
		return int64(r) * n, n, nil
	case b.Heads < t && t%b.Heads == 0:
		return int64(r) / (t / b.Heads) * width, width, nil
	}
	return 0, 0, fmt.Errorf("%d heads and %d tensor-parallel ranks do not divide each other", b.Heads, tp)
}
