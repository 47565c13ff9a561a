package geometry

import (
	"fmt"
	"slices"
)

// Numel is the number of elements of a shape; the empty shape is a scalar.
func Numel(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// A Part is a box that a local array and the logical tensor have in common.
type Part struct {
	Local  []int64 // where the box begins in the local array
	Global []int64 // where the box begins in the logical tensor
	Size   []int64
}

// A View places a row-major local array in a row-major logical tensor. Local
// elements that are in no part are padding.
type View struct {
	Local  []int64
	Global []int64
	Parts  []Part
}

// Whole is the view of an array that is the logical tensor itself.
func Whole(shape []int64) View {
	zero := make([]int64, len(shape))
	return View{shape, shape, []Part{{zero, zero, shape}}}
}

// At is the view of a local array that is one box of the logical tensor.
func At(global, offset, size []int64) View {
	return View{size, global, []Part{{make([]int64, len(size)), offset, size}}}
}

// IsWhole reports whether local and logical array are the same, element by
// element.
func (v View) IsWhole() bool {
	if len(v.Parts) != 1 || !slices.Equal(v.Local, v.Global) {
		return false
	}
	return slices.Equal(v.Parts[0].Size, v.Global)
}

// Invert swaps the roles of local array and logical tensor.
func (v View) Invert() View {
	parts := make([]Part, len(v.Parts))
	for i, p := range v.Parts {
		parts[i] = Part{p.Global, p.Local, p.Size}
	}
	return View{v.Global, v.Local, parts}
}

// Check reports a part that leaves its arrays, or two parts that share local
// elements.
func (v View) Check() error {
	for i, p := range v.Parts {
		if len(p.Local) != len(v.Local) || len(p.Global) != len(v.Global) || len(p.Size) != len(v.Local) || len(v.Local) != len(v.Global) {
			return fmt.Errorf("part %d of a view has another rank than its arrays", i)
		}
		for d := range p.Size {
			if p.Size[d] < 0 || p.Local[d] < 0 || p.Global[d] < 0 || p.Local[d]+p.Size[d] > v.Local[d] || p.Global[d]+p.Size[d] > v.Global[d] {
				return fmt.Errorf("part %d leaves its array in dimension %d (local %v at %v in %v, logical at %v in %v)", i, d, p.Size, p.Local, v.Local, p.Global, v.Global)
			}
		}
		for j := range i {
			if overlap(p.Local, p.Size, v.Parts[j].Local, v.Parts[j].Size) {
				return fmt.Errorf("parts %d and %d share local elements", j, i)
			}
		}
	}
	return nil
}

func overlap(a, an, b, bn []int64) bool {
	for d := range a {
		if a[d]+an[d] <= b[d] || b[d]+bn[d] <= a[d] {
			return false
		}
	}
	return true
}

// A Walker turns positions of the local array into runs of the logical tensor.
// It holds scratch space and serves one goroutine.
type Walker struct {
	from, to []int64 // shapes
	parts    []Part  // Local belongs to from, Global to to
	inner    []int64 // per part: elements of the trailing dimensions it spans whole on both sides
	dim      []int   // per part: the dimension in which its runs extend
	padDim   int     // the outermost dimension below which every part is whole
	padInner int64
	toStride []int64
	coord    []int64
	last     int
	whole    bool
}

// Walk prepares the way from local positions to logical runs.
func (v View) Walk() *Walker {
	w := &Walker{from: v.Local, to: v.Global, parts: v.Parts, whole: v.IsWhole()}
	rank := len(v.Local)
	w.coord = make([]int64, rank)
	w.toStride = strides(v.Global)
	w.padDim, w.padInner = -1, Numel(v.Local)
	for _, p := range v.Parts {
		d, inner := rank-1, int64(1)
		for d > 0 && p.Size[d] == v.Local[d] && p.Size[d] == v.Global[d] {
			inner *= p.Size[d]
			d--
		}
		w.dim = append(w.dim, d)
		w.inner = append(w.inner, inner)
		if d > w.padDim {
			w.padDim, w.padInner = d, inner
		}
	}
	return w
}

func strides(shape []int64) []int64 {
	s := make([]int64, len(shape))
	n := int64(1)
	for d := len(shape) - 1; d >= 0; d-- {
		s[d] = n
		n *= shape[d]
	}
	return s
}

// Next gives, for the local position pos, the logical position and the length
// of the run that begins there; to is -1 where the local elements are padding.
// pos must lie inside the local array.
func (w *Walker) Next(pos int64) (to, n int64) {
	if w.whole {
		return pos, Numel(w.from) - pos
	}
	if len(w.from) == 0 { // a scalar in no part
		if len(w.parts) > 0 {
			return 0, 1
		}
		return -1, 1
	}
	rest := pos
	for d := len(w.from) - 1; d >= 0; d-- {
		w.coord[d] = rest % w.from[d]
		rest /= w.from[d]
	}
	for k := range w.parts {
		i := (w.last + k) % len(w.parts)
		if w.parts[i].holds(w.coord) {
			w.last = i
			return w.inside(i, pos)
		}
	}
	return -1, w.padding(pos)
}

func (p *Part) holds(c []int64) bool {
	for d, x := range c {
		if x < p.Local[d] || x >= p.Local[d]+p.Size[d] {
			return false
		}
	}
	return true
}

func (w *Walker) inside(i int, pos int64) (to, n int64) {
	p, d := &w.parts[i], w.dim[i]
	for k, x := range w.coord {
		to += (x - p.Local[k] + p.Global[k]) * w.toStride[k]
	}
	return to, (p.Local[d]+p.Size[d]-w.coord[d])*w.inner[i] - pos%w.inner[i]
}

// padding gives the length of a run of padding: up to the next beginning of any
// part in the dimension that all runs extend in, or its end.
func (w *Walker) padding(pos int64) int64 {
	if w.padDim < 0 {
		return Numel(w.from) - pos
	}
	end := w.from[w.padDim]
	for i := range w.parts {
		if b := w.parts[i].Local[w.padDim]; b > w.coord[w.padDim] && b < end {
			end = b
		}
	}
	return (end-w.coord[w.padDim])*w.padInner - pos%w.padInner
}
