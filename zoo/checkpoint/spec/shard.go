package spec

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// Merge gives the logical shape of a parameter and the view of each
// tensor-parallel rank, from the shapes that the ranks hold. vocab is the
// number of rows that a vocabulary parameter keeps; 0 keeps all.
func (m Match) Merge(locals [][]int64, vocab int64) ([]int64, []geometry.View, error) {
	first := locals[0]
	if len(locals) == 1 && m.Sub == nil {
		return m.mergeDim(locals, 0, vocab)
	}
	switch m.Kind {
	case Replicated, Average:
		views := make([]geometry.View, len(locals))
		for r, l := range locals {
			if !slices.Equal(l, first) {
				return nil, nil, fmt.Errorf("it should be %s, but rank 0 holds %v and rank %d %v", m.Kind, first, r, l)
			}
			views[r] = geometry.Whole(first)
		}
		return first, views, nil
	case Unique:
		return nil, nil, fmt.Errorf("it should be unique, but %d ranks hold it", len(locals))
	}
	switch {
	case m.Sub != nil:
		return m.mergeSub(locals)
	case m.Count > 1:
		return m.mergeCount(locals)
	}
	return m.mergeDim(locals, m.Dim, vocab)
}

// mergeDim concatenates along one dimension; the ranks may be uneven.
func (m Match) mergeDim(locals [][]int64, dim int, vocab int64) ([]int64, []geometry.View, error) {
	if len(locals[0]) == 0 {
		if len(locals) > 1 {
			return nil, nil, fmt.Errorf("a scalar cannot be cut over %d ranks", len(locals))
		}
		return locals[0], []geometry.View{geometry.Whole(locals[0])}, nil
	}
	widths := make([]int64, len(locals))
	shape, err := stack(locals, dim, widths)
	if err != nil {
		return nil, nil, err
	}
	if m.Vocabulary && vocab > 0 && vocab < shape[0] {
		if dim != 0 {
			return nil, nil, fmt.Errorf("a vocabulary parameter is cut along dimension %d", dim)
		}
		pad := shape[0]
		shape[0] = vocab
		s := geometry.Split{Dim: 0, Pad: pad, Sub: []geometry.Sub{{Size: vocab, Widths: widths}}}
		v, err := s.Views(shape, len(locals))
		return shape, v, err
	}
	s := geometry.Split{Dim: dim, Sub: []geometry.Sub{{Size: shape[dim], Widths: widths}}}
	v, err := s.Views(shape, len(locals))
	return shape, v, err
}

// stack gives the shape of a concatenation and each rank's width.
func stack(locals [][]int64, dim int, widths []int64) ([]int64, error) {
	shape := slices.Clone(locals[0])
	if dim >= len(shape) {
		return nil, fmt.Errorf("it should be cut along dimension %d, but has shape %v", dim, shape)
	}
	shape[dim] = 0
	for r, l := range locals {
		if len(l) != len(shape) {
			return nil, fmt.Errorf("rank %d holds shape %v, rank 0 %v", r, l, locals[0])
		}
		for d := range l {
			if d != dim && l[d] != shape[d] {
				return nil, fmt.Errorf("rank %d holds shape %v, rank 0 %v: they differ outside dimension %d", r, l, locals[0], dim)
			}
		}
		widths[r] = l[dim]
		shape[dim] += l[dim]
	}
	return shape, nil
}

// mergeCount merges equal fused sub-parameters: each rank holds a piece of
// each, one after the other, cut as torch.chunk cuts.
func (m Match) mergeCount(locals [][]int64) ([]int64, []geometry.View, error) {
	total := make([]int64, len(locals))
	shape, err := stack(locals, m.Dim, total)
	if err != nil {
		return nil, nil, err
	}
	s := geometry.Split{Dim: m.Dim, Sub: make([]geometry.Sub, m.Count)}
	for i := range s.Sub {
		for _, t := range total {
			chunk := (t + int64(m.Count) - 1) / int64(m.Count)
			w := min(chunk, max(t-int64(i)*chunk, 0))
			s.Sub[i].Widths = append(s.Sub[i].Widths, w)
			s.Sub[i].Size += w
		}
	}
	v, err := s.Views(shape, len(locals))
	return shape, v, err
}

// mergeSub merges fused sub-parameters of stated sizes.
func (m Match) mergeSub(locals [][]int64) ([]int64, []geometry.View, error) {
	m.Sub = m.Sub.Closed(locals[0])
	n := int64(0)
	dimTotal := int64(0)
	for _, l := range locals {
		n += geometry.Numel(l)
		if m.Sub.Dim < len(l) {
			dimTotal += l[m.Sub.Dim]
		}
	}
	copies := slices.ContainsFunc(m.Heads, func(h int64) bool { return h > 0 && h < int64(len(locals)) })
	shape, sizes, err := m.Sub.Resolve(n, dimTotal, copies)
	if err != nil {
		return nil, nil, err
	}
	s, err := m.subSplit(sizes, len(locals))
	if err != nil {
		return nil, nil, err
	}
	v, err := s.Views(shape, len(locals))
	if err != nil {
		return nil, nil, err
	}
	for r, l := range locals {
		if a, b := geometry.Numel(l), geometry.Numel(v[r].Local); a != b {
			return nil, nil, fmt.Errorf("rank %d holds %d elements (shape %v), but the pattern gives it %d (shape %v)", r, a, l, b, v[r].Local)
		}
	}
	return shape, v, nil
}

func (m Match) subSplit(sizes []int64, tp int) (geometry.Split, error) {
	s := geometry.Split{Dim: m.Sub.Dim}
	for i, n := range sizes {
		b := geometry.Sub{Size: n}
		if i < len(m.Widths) && len(m.Widths[i]) == tp {
			b.Widths = m.Widths[i]
		}
		if i < len(m.Heads) {
			b.Heads = m.Heads[i]
		}
		s.Sub = append(s.Sub, b)
	}
	return s, nil
}

// Resolve gives the logical shape and the sizes of the sub-parameters. numel
// settles a dimension of -1, dimTotal the sizes where only a count is stated.
// With replicated heads numel counts copies too, so nothing may be left open.
func (s *SubShape) Resolve(numel, dimTotal int64, copies bool) (shape, sizes []int64, err error) {
	if s.Dim < 0 || s.Dim >= len(s.Shape) {
		return nil, nil, fmt.Errorf("partition dimension %d is outside sub-parameter shape %v", s.Dim, s.Shape)
	}
	e := s.Shape[s.Dim]
	sizes = e.Sizes
	if !e.Tuple {
		count := e.Sizes[0]
		if count <= 0 || dimTotal%count != 0 {
			return nil, nil, fmt.Errorf("%d equal sub-parameters do not divide dimension %d of %d", count, s.Dim, dimTotal)
		}
		sizes = slices.Repeat([]int64{dimTotal / count}, int(count))
	}
	open, known := -1, int64(1)
	for d, x := range s.Shape {
		n := x.Sum()
		if d == s.Dim {
			n = Entry{Sizes: sizes}.Sum()
		}
		shape = append(shape, n)
		if n < 0 {
			if open >= 0 || copies {
				return nil, nil, fmt.Errorf("sub-parameter shape %v leaves dimensions open", s.Shape)
			}
			open = d
			continue
		}
		known *= n
	}
	if open >= 0 {
		if known == 0 || numel%known != 0 {
			return nil, nil, fmt.Errorf("%d elements do not fit sub-parameter shape %v", numel, s.Shape)
		}
		shape[open] = numel / known
	}
	return shape, sizes, nil
}

// Cut gives the views of tp ranks on a logical tensor. pad is the padded size
// of the vocabulary, for vocabulary parameters.
func (m Match) Cut(shape []int64, tp int, pad int64) ([]geometry.View, error) {
	whole := func() []geometry.View {
		v := make([]geometry.View, tp)
		for r := range v {
			v[r] = geometry.Whole(shape)
		}
		return v
	}
	if tp == 1 && !m.Vocabulary {
		return whole(), nil
	}
	switch m.Kind {
	case Replicated, Average:
		return whole(), nil
	case Unique:
		return nil, fmt.Errorf("a unique parameter cannot be given to %d tensor-parallel ranks", tp)
	}
	if len(shape) == 0 {
		return nil, fmt.Errorf("a scalar cannot be cut over %d ranks", tp)
	}
	s := geometry.Split{Dim: m.Dim}
	switch {
	case m.Sub != nil:
		_, sizes, err := m.Sub.Closed(shape).Resolve(geometry.Numel(shape), shape[min(m.Sub.Dim, len(shape)-1)], false)
		if err != nil {
			return nil, err
		}
		if s, err = m.subSplit(sizes, tp); err != nil {
			return nil, err
		}
	case m.Count > 1:
		if shape[m.Dim]%int64(m.Count) != 0 {
			return nil, fmt.Errorf("%d rows are not %d equal sub-parameters", shape[m.Dim], m.Count)
		}
		for range m.Count {
			s.Sub = append(s.Sub, geometry.Sub{Size: shape[m.Dim] / int64(m.Count)})
		}
	case m.Vocabulary:
		s.Dim, s.Pad = 0, pad
	case len(m.Widths) == 1 && len(m.Widths[0]) == tp:
		s.Sub = []geometry.Sub{{Size: shape[m.Dim], Widths: m.Widths[0]}}
	case len(m.Heads) == 1 && m.Heads[0] > 0:
		s.Sub = []geometry.Sub{{Size: shape[m.Dim], Heads: m.Heads[0]}}
	}
	return s.Views(shape, tp)
}

// PadVocab is the padded size of the vocabulary for a number of tensor-parallel
// ranks: by Megatron's rule where the divisor is known, else as before where
// that divides, else the next multiple.
func (s *Spec) PadVocab(rows int64, tp int) int64 {
	t := int64(tp)
	switch {
	case s.VocabDivisor > 0:
		return geometry.Align(rows, s.VocabDivisor*t)
	case s.PaddedVocab >= rows && s.PaddedVocab%t == 0:
		return s.PaddedVocab
	}
	return geometry.Align(rows, t)
}
