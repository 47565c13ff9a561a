package program

import "sort"

// life is a buffer and the steps that need it, from the first to the last.
type life struct {
	b           *Buf
	first, last int
}

// Plan gives every arena buffer an offset by lifetime: two buffers share
// memory if no step needs both. Buffers are placed largest first into the
// lowest gap (greedy by size, as in "Efficient Memory Management for Deep
// Neural Net Inference", arXiv 2001.03288, which finds it within a few percent
// of the lower bound on real networks).
func (p *Program) Plan() {
	all := p.lives()
	sort.SliceStable(all, func(i, j int) bool { return all[i].b.Size() > all[j].b.Size() })
	taken := newTimeline(len(p.Steps))
	p.Workspace = 0
	for _, l := range all {
		size := Pad(l.b.Size())
		l.b.Offset = taken.lowest(l.first, l.last, size)
		taken.add(l.first, l.last, span{l.b.Offset, l.b.Offset + size})
		p.Workspace = max(p.Workspace, l.b.Offset+size)
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

// lives lists the arena buffers that have memory of their own, in the order of
// their first use.
func (p *Program) lives() []*life {
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
	return all
}

// Pad leaves one cache line after each buffer: vector kernels may read, never
// write, up to a vector past the end.
func Pad(n int) int { return (n+Align-1)/Align*Align + Align }

// span is memory from a byte up to another one.
type span struct{ from, to int }

// spans is memory that is taken: in order, apart from each other.
type spans []span

// after is the index of the first span that ends behind a byte.
func (s spans) after(at int) int {
	return sort.Search(len(s), func(i int) bool { return s[i].to > at })
}

// add joins a span with those that it meets.
func (s spans) add(n span) spans {
	i := sort.Search(len(s), func(i int) bool { return s[i].to >= n.from })
	j := i
	for ; j < len(s) && s[j].from <= n.to; j++ {
		n = span{min(n.from, s[j].from), max(n.to, s[j].to)}
	}
	if i == j {
		s = append(s, span{})
		copy(s[i+1:], s[i:])
	} else {
		s = append(s[:i+1], s[j:]...)
	}
	s[i] = n
	return s
}

// timeline says what memory is taken at which steps. It is a segment tree over
// the steps: a lifetime is cut into O(log n) nodes, and what buffers of one
// moment take is mostly one span, however many they are. So a program of
// thousands of buffers, all live at once or one after the other, is planned in
// milliseconds.
type timeline struct {
	steps int
	nodes []timeNode // the children of node i are 2i+1 and 2i+2
}

type timeNode struct {
	whole  spans // of buffers that are needed at all steps of the node
	within spans // of those and of what is needed at some of them
}

func newTimeline(steps int) *timeline {
	n := 1
	for n < steps {
		n *= 2
	}
	return &timeline{n, make([]timeNode, 2*n-1)}
}

// walk visits the nodes above the steps first to last, and those that they are
// made of (part).
func (t *timeline) walk(first, last int, visit func(n *timeNode, part bool)) {
	var down func(i, from, to int)
	down = func(i, from, to int) {
		part := first <= from && to <= last
		visit(&t.nodes[i], part)
		if part {
			return
		}
		mid := (from + to) / 2
		if first <= mid {
			down(2*i+1, from, mid)
		}
		if last > mid {
			down(2*i+2, mid+1, to)
		}
	}
	down(0, 0, t.steps-1)
}

func (t *timeline) add(first, last int, s span) {
	t.walk(first, last, func(n *timeNode, part bool) {
		n.within = n.within.add(s)
		if part {
			n.whole = n.whole.add(s)
		}
	})
}

// lowest is the lowest gap of a size that is free at all steps from first to
// last.
func (t *timeline) lowest(first, last, size int) int {
	var taken []spans
	t.walk(first, last, func(n *timeNode, part bool) {
		s := n.whole
		if part {
			s = n.within
		}
		if len(s) > 0 {
			taken = append(taken, s)
		}
	})
	at := 0
	for moved := true; moved; {
		moved = false
		for _, s := range taken {
			for i := s.after(at); i < len(s) && s[i].from < at+size; i++ {
				at, moved = s[i].to, true
			}
		}
	}
	return at
}
