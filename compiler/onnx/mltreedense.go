package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The upper levels of trees are not walked where there are many rows: every
// branch is asked, for as many rows at once as there are lanes, and choices are
// made from below. That is more questions, but none waits for another, and
// nothing is looked up by lane.

const (
	denseRows = 8 // below, walking reads less
	denseAll  = 6 // trees of this depth are not walked at all
	denseTop  = 5 // of deeper ones this many levels: beyond, most questions are in vain
	denseOuts = 16
)

// filled is the upper part of a forest with complete trees: level l of tree t
// has 2^l branches, and all end at one depth.
type filled struct {
	depth  int
	below  int          // levels under that
	branch [][]treeNode // by level, tree after tree
	leaf   []int        // nodes of the forest where they end, tree after tree
}

// dense completes the trees of a forest; ok is false if it is to be walked.
func (f *forest) dense(c *Ctx, rows int) (d filled, ok bool) {
	d.depth = f.depth(c)
	if rows < denseRows || d.depth < 1 || f.outs > denseOuts {
		return d, false
	}
	if d.depth > denseAll {
		d.depth, d.below = denseTop, d.depth-denseTop
	}
	mode := -1
	for i, n := range f.nodes {
		if n.yes == i && n.no == i {
			continue
		}
		if n.missing || mode >= 0 && n.mode != mode {
			return d, false
		}
		mode = n.mode
	}
	at := f.roots
	for range d.depth {
		var level []treeNode
		var next []int
		for _, i := range at {
			n := f.nodes[i]
			if n.yes == i && n.no == i { // a leaf: both ways lead to it again
				n.mode = mode
			}
			level, next = append(level, n), append(next, n.yes, n.no)
		}
		d.branch = append(d.branch, level)
		at = next
	}
	d.leaf = at
	return d, true
}

// choose gives one value per tree and row, [trees, rows]: what leaf says of the
// leaf that the row ends in, where x is [features, rows].
func (d filled) choose(b *core.Builder, x *ir.Value, trees int, leaf *tensor.Tensor) *ir.Value {
	rows := core.Shape(x)[1]
	spread := func(t *tensor.Tensor, width int) *ir.Value {
		return b.BroadcastTo(b.Reshape(b.Const(t), trees, width, 1), trees, width, rows)
	}
	var tests []*ir.Value
	for l, level := range d.branch {
		feature, value := tensor.New(tensor.I64, trees, 1<<l), tensor.New(x.DType(), len(level))
		for i, n := range level {
			feature.SetInt(i, int64(n.feature))
			value.SetFloat(i, n.value)
		}
		tests = append(tests, compareBranch(b, level[0].mode, b.Gather(x, 0, b.Const(feature)), spread(value, 1<<l)))
	}
	ends := spread(leaf, 1<<d.depth)
	var node func(l, i int) *ir.Value
	node = func(l, i int) *ir.Value {
		if l == d.depth {
			return b.SliceAxis(ends, 1, i, 1)
		}
		return b.Where(b.SliceAxis(tests[l], 1, i, 1), node(l+1, 2*i), node(l+1, 2*i+1))
	}
	return b.Reshape(node(0, 0), trees, rows)
}

// sums adds up the votes w [nodes, outs] of all trees, [rows, outs].
func (d filled) sums(c *Ctx, f *forest, x *ir.Value, w *tensor.Tensor) *ir.Value {
	b, trees, outs := c.B, len(f.roots), f.outs
	rows := core.Shape(x)[0]
	x = b.Transpose(x, 1, 0)
	if outs == 1 && d.below == 0 {
		leaf := tensor.New(w.DType, len(d.leaf))
		for i, n := range d.leaf {
			leaf.SetFloat(i, w.Float(n))
		}
		return b.Transpose(b.Reduce("reduce_sum", d.choose(b, x, trees, leaf), true, 0), 1, 0)
	}
	walk := f.walkOver(x, rows)
	leaf := tensor.New(walk.index, len(d.leaf))
	for i, n := range d.leaf {
		leaf.SetInt(i, int64(n))
	}
	at := f.walk(c, walk, b.Iota(walk.index, 1, 1, rows), d.choose(b, x, trees, leaf), d.below)
	var each []*ir.Value
	for o := range outs {
		votes := tensor.New(w.DType, w.Shape[0])
		for i := range w.Shape[0] {
			votes.SetFloat(i, w.Float(i*outs+o))
		}
		each = append(each, b.Reduce("reduce_sum", b.Gather(b.Const(votes), 0, at), true, 0))
	}
	return b.Transpose(b.Concat(0, each...), 1, 0)
}
