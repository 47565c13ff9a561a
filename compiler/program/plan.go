package program

import "sort"

// Plan gives every arena buffer an offset by lifetime: two buffers share
// memory if no step needs both. Buffers are placed largest first into the
// lowest gap (greedy by size, as in "Efficient Memory Management for Deep
// Neural Net Inference", arXiv 2001.03288, which finds it within a few percent
// of the lower bound on real networks).
func (p *Program) Plan() {
	type life struct {
		b           *Buf
		first, last int
	}
	lives := map[*Buf]*life{}
	var all []*life
	for i, s := range p.Steps {
		for _, a := range s.Args {
			if a.Where != Arena {
				continue
			}
			a, _ = a.Whole()
			l := lives[a]
			if l == nil {
				l = &life{a, i, i}
				lives[a] = l
				all = append(all, l)
			}
			l.last = i
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].b.Size() > all[j].b.Size() })
	var placed []*life
	p.Workspace = 0
	for _, l := range all {
		at := 0
		for moved := true; moved; {
			moved = false
			for _, q := range placed {
				if q.last < l.first || l.last < q.first {
					continue
				}
				if at < q.b.Offset+Pad(q.b.Size()) && q.b.Offset < at+Pad(l.b.Size()) {
					at = q.b.Offset + Pad(q.b.Size())
					moved = true
				}
			}
		}
		l.b.Offset = at
		placed = append(placed, l)
		p.Workspace = max(p.Workspace, at+Pad(l.b.Size()))
	}
	for _, s := range p.Steps {
		for _, a := range s.Args {
			if a.Of != nil {
				whole, from := a.Whole()
				a.Offset = whole.Offset + from
			}
		}
	}
	p.Weights = 0
	for _, c := range p.Consts {
		c.Buf.Offset = p.Weights
		p.Weights += Pad(c.Buf.Size())
	}
}

// Pad leaves one cache line after each buffer: vector kernels may read, never
// write, up to a vector past the end.
func Pad(n int) int { return (n+Align-1)/Align*Align + Align }
