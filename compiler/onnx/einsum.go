package onnx

import (
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// term is an einsum operand: a value and one label per axis, no label twice.
// Axes under an ellipsis have the labels ellipsisLabel, +1, … from the last.
type term struct {
	v      *ir.Value
	labels []rune
}

const ellipsisLabel = rune(0x10000)

// expandEinsum contracts the operands from left to right, each pair by one dot
// (or by one multiplication if nothing is summed).
func expandEinsum(c *Ctx) {
	ins, out := einsumTerms(c)
	size := map[rune]int{}
	for _, t := range ins {
		for i, l := range t.labels {
			d := core.Shape(t.v)[i]
			if old, ok := size[l]; ok && old != d && old != 1 && d != 1 {
				c.Fail("label %q has sizes %d and %d", l, old, d)
			}
			size[l] = max(size[l], d)
			if d == 0 {
				size[l] = 0
			}
		}
	}
	for i := range ins {
		ins[i] = dropUnit(c, ins[i], size)
	}
	acc := ins[0]
	for i := 1; i <= len(ins); i++ {
		needed := slices.Clone(out)
		for _, t := range ins[i:] {
			needed = append(needed, t.labels...)
		}
		acc = sumOut(c, acc, needed)
		if i < len(ins) {
			later := slices.Clone(out)
			for _, t := range ins[i+1:] {
				later = append(later, t.labels...)
			}
			acc = contract(c, acc, sumOut(c, ins[i], append(later, acc.labels...)), later)
		}
	}
	c.Out(0, arrange(c, acc, out, size))
}

// einsumTerms parses the equation (numpy's: "ij,jk->ik", "...i,i", spaces
// ignored) and takes diagonals of operands with repeated labels.
func einsumTerms(c *Ctx) (ins []term, out []rune) {
	eq := strings.ReplaceAll(c.N.Str("equation", ""), " ", "")
	left, right, explicit := strings.Cut(eq, "->")
	parts := strings.Split(left, ",")
	if len(parts) != c.NIn() {
		c.Fail("equation %q names %d operands, there are %d", eq, len(parts), c.NIn())
	}
	dots := 0
	seen := map[rune]int{}
	for i, p := range parts {
		x := c.In(i)
		labels := einsumLabels(c, eq, p, x.Rank())
		for _, l := range labels {
			if l >= ellipsisLabel {
				dots = max(dots, int(l-ellipsisLabel)+1)
			} else {
				seen[l]++
			}
		}
		ins = append(ins, diagonal(c, term{x, labels}))
	}
	var dotted []rune
	for k := dots - 1; k >= 0; k-- {
		dotted = append(dotted, ellipsisLabel+rune(k))
	}
	if !explicit {
		var once []rune
		for l, n := range seen {
			if n == 1 {
				once = append(once, l)
			}
		}
		slices.Sort(once)
		return ins, append(dotted, once...)
	}
	head, tail, hasDots := strings.Cut(right, "...")
	out = []rune(head)
	if hasDots {
		out = append(append(out, dotted...), []rune(tail)...)
	}
	for i, l := range out {
		if l < ellipsisLabel && seen[l] == 0 || slices.Contains(out[:i], l) {
			c.Fail("equation %q: output label %q is unknown or repeated", eq, l)
		}
	}
	return ins, out
}

func einsumLabels(c *Ctx, eq, part string, rank int) []rune {
	head, tail, hasDots := strings.Cut(part, "...")
	for _, l := range head + tail {
		if (l < 'a' || l > 'z') && (l < 'A' || l > 'Z') {
			c.Fail("equation %q has a label %q", eq, l)
		}
	}
	n := rank - len(head) - len(tail)
	if n < 0 || n > 0 && !hasDots {
		c.Fail("equation %q: term %q does not fit rank %d", eq, part, rank)
	}
	labels := []rune(head)
	for k := n - 1; k >= 0; k-- {
		labels = append(labels, ellipsisLabel+rune(k))
	}
	return append(labels, []rune(tail)...)
}

// diagonal brings axes with equal labels together: of the flattened pair, every
// (n+1)-th element is on the diagonal.
func diagonal(c *Ctx, t term) term {
	for i := 0; i < len(t.labels); i++ {
		j := slices.Index(t.labels[i+1:], t.labels[i])
		if j < 0 {
			continue
		}
		j += i + 1
		s := core.Shape(t.v)
		n := s[i]
		if s[j] != n {
			c.Fail("label %q has sizes %d and %d in one operand", t.labels[i], n, s[j])
		}
		perm := slices.Concat([]int{i, j}, slices.DeleteFunc(count(0, len(s)), func(a int) bool { return a == i || a == j }))
		x := c.B.Transpose(t.v, perm...)
		tail := core.Shape(x)[2:]
		x = c.B.Reshape(x, append([]int{n * n}, tail...)...)
		starts, steps := make([]int, len(tail)+1), slices.Repeat([]int{1}, len(tail)+1)
		steps[0] = n + 1
		x = c.B.Slice(x, starts, append([]int{n}, tail...), steps)
		var labels []rune
		for _, p := range perm[2:] {
			labels = append(labels, t.labels[p])
		}
		t = term{x, append([]rune{t.labels[i]}, labels...)}
		i = -1
	}
	return t
}

// dropUnit removes axes of size 1 whose label is larger elsewhere: they
// broadcast.
func dropUnit(c *Ctx, t term, size map[rune]int) term {
	s := core.Shape(t.v)
	var axes []int
	var keep []rune
	for i, l := range t.labels {
		if s[i] == 1 && size[l] != 1 {
			axes = append(axes, i)
		} else {
			keep = append(keep, l)
		}
	}
	return term{c.B.Drop(t.v, axes...), keep}
}

// sumOut sums the labels that nothing needs.
func sumOut(c *Ctx, t term, needed []rune) term {
	var axes []int
	var keep []rune
	for i, l := range t.labels {
		if slices.Contains(needed, l) {
			keep = append(keep, l)
		} else {
			axes = append(axes, i)
		}
	}
	if len(axes) == 0 {
		return t
	}
	return term{c.B.Reduce("reduce_sum", t.v, false, axes...), keep}
}

func contract(c *Ctx, x, y term, later []rune) term {
	var lb, rb, lc, rc []int
	var batch []rune
	for i, l := range x.labels {
		j := slices.Index(y.labels, l)
		switch {
		case j < 0:
		case slices.Contains(later, l):
			lb, rb, batch = append(lb, i), append(rb, j), append(batch, l)
		default:
			lc, rc = append(lc, i), append(rc, j)
		}
	}
	xs := slices.DeleteFunc(slices.Clone(x.labels), func(l rune) bool { return slices.Contains(y.labels, l) })
	ys := slices.DeleteFunc(slices.Clone(y.labels), func(l rune) bool { return slices.Contains(x.labels, l) })
	labels := slices.Concat(batch, xs, ys)
	if len(lc) == 0 {
		return term{c.B.Mul(spread(c, x, labels), spread(c, y, labels)), labels}
	}
	return term{c.B.Dot(x.v, y.v, lb, rb, lc, rc, tensor.Invalid), labels}
}

// spread orders the axes of t by labels, with size 1 where t has no such label.
func spread(c *Ctx, t term, labels []rune) *ir.Value {
	var perm, shape []int
	for _, l := range labels {
		if i := slices.Index(t.labels, l); i >= 0 {
			perm = append(perm, i)
			shape = append(shape, core.Shape(t.v)[i])
		} else {
			shape = append(shape, 1)
		}
	}
	return c.B.Reshape(c.B.Transpose(t.v, perm...), shape...)
}

func arrange(c *Ctx, t term, out []rune, size map[rune]int) *ir.Value {
	var full []int
	for _, l := range out {
		full = append(full, size[l])
	}
	return c.B.BroadcastTo(spread(c, t, out), full...)
}
