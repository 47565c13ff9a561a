package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mlTreeOps walk all trees for all rows at once: a node number per row and
// tree, moved down one level at a time by reading tables.
var mlTreeOps = []Op{
	{Domain: ml, Name: "TreeEnsemble", Since: []int{5}, Expand: expandTreeEnsemble},
	{Domain: ml, Name: "TreeEnsembleRegressor", Since: []int{1, 3, 5}, Expand: expandTreeRegressor},
	{Domain: ml, Name: "TreeEnsembleClassifier", Since: []int{1, 3, 5}, Expand: expandTreeClassifier},
}

// branch modes, numbered as nodes_modes of TreeEnsemble.
const (
	branchLE = iota
	branchLT
	branchGE
	branchGT
	branchEQ
	branchNE
	branchIn
	branchModes
)

var branchNames = map[string]int{"BRANCH_LEQ": branchLE, "BRANCH_LT": branchLT, "BRANCH_GTE": branchGE, "BRANCH_GT": branchGT, "BRANCH_EQ": branchEQ, "BRANCH_NEQ": branchNE}

// treeNode is a branch, or a leaf: its own successor.
type treeNode struct {
	mode, feature int
	value         float64
	missing       bool // NaN goes the way of true
	yes, no       int
}

type vote struct {
	target int
	weight float64
}

// forest is the trees of one node of the model, in one list.
type forest struct {
	nodes []treeNode
	votes map[int][]vote // by leaf
	roots []int
	outs  int
}

// depth is the length of the longest path; it fails on a cycle.
func (f *forest) depth(c *Ctx) int {
	memo := make([]int, len(f.nodes)) // 0: unseen, -1: on the path, else depth+1
	var walk func(i int) int
	walk = func(i int) int {
		if i < 0 || i >= len(f.nodes) {
			c.Fail("a tree leads to node %d of %d", i, len(f.nodes))
		}
		n := f.nodes[i]
		switch {
		case memo[i] == -1:
			c.Fail("a tree leads back to its node %d", i)
		case memo[i] == 0 && n.yes == i && n.no == i:
			memo[i] = 1
		case memo[i] == 0:
			memo[i] = -1
			memo[i] = max(walk(n.yes), walk(n.no)) + 2
		}
		return memo[i] - 1
	}
	most := 0
	for _, r := range f.roots {
		most = max(most, walk(r))
	}
	return most
}

// table is a constant of one number per node.
func (f *forest) table(b *core.Builder, d tensor.DType, get func(treeNode) float64) *ir.Value {
	t := tensor.New(d, len(f.nodes))
	for i, n := range f.nodes {
		t.SetFloat(i, get(n))
	}
	return b.Const(t)
}

// check fails on a branch that reads a feature that there is not.
func (f *forest) check(c *Ctx, features int) {
	for i, n := range f.nodes {
		if (n.yes != i || n.no != i) && (n.feature < 0 || n.feature >= features) {
			c.Fail("a tree reads feature %d of %d", n.feature, features)
		}
	}
}

// leaves gives the leaf of every row in every tree, [rows, trees].
func (f *forest) leaves(c *Ctx, x *ir.Value) *ir.Value {
	b := c.B
	s := core.Shape(x)
	f.check(c, s[1])
	w := f.walkOver(x, 1)
	at := b.BroadcastTo(b.Reshape(b.Cast(b.Ints(f.roots...), w.index), 1, len(f.roots)), s[0], len(f.roots))
	row := b.Mul(b.Iota(w.index, 0, s[0], 1), b.ScalarInt(w.index, int64(s[1])))
	return f.walk(c, w, row, at, f.depth(c))
}

// walker is how the features of rows are found: at base + feature·stride.
type walker struct {
	flat   *ir.Value
	stride int
	index  tensor.DType
}

func (f *forest) walkOver(x *ir.Value, stride int) walker {
	n := tensor.Numel(core.Shape(x))
	w := walker{flat: x, stride: stride, index: tensor.I32}
	if max(n, len(f.nodes)) > math.MaxInt32 {
		w.index = tensor.I64
	}
	return w
}

// walk goes some levels down from the nodes at, each for the row whose features
// begin at base.
func (f *forest) walk(c *Ctx, w walker, base, at *ir.Value, levels int) *ir.Value {
	b := c.B
	var used [branchModes]bool
	missing := false
	for i, n := range f.nodes {
		if n.yes == i && n.no == i {
			continue
		}
		used[n.mode] = true
		missing = missing || n.missing
	}
	flat := b.Reshape(w.flat, tensor.Numel(core.Shape(w.flat)))
	feature := f.table(b, w.index, func(n treeNode) float64 { return float64(n.feature * w.stride) })
	value := f.table(b, flat.DType(), func(n treeNode) float64 { return n.value })
	mode := f.table(b, w.index, func(n treeNode) float64 { return float64(n.mode) })
	yes := f.table(b, w.index, func(n treeNode) float64 { return float64(n.yes) })
	no := f.table(b, w.index, func(n treeNode) float64 { return float64(n.no) })
	flag := b.Cast(f.table(b, tensor.U8, func(n treeNode) float64 {
		if n.missing {
			return 1
		}
		return 0
	}), tensor.Bool)
	for range levels {
		v := b.Gather(flat, 0, b.Add(base, b.Gather(feature, 0, at)))
		t := b.Gather(value, 0, at)
		var test, which *ir.Value
		for m, u := range used {
			switch {
			case !u:
			case test == nil:
				test = compareBranch(b, m, v, t)
			default:
				if which == nil {
					which = b.Gather(mode, 0, at)
				}
				test = b.Where(b.Eq(which, b.ScalarInt(w.index, int64(m))), compareBranch(b, m, v, t), test)
			}
		}
		if missing {
			test = b.Or(test, b.And(b.Unary("isnan", v), b.Gather(flag, 0, at)))
		}
		at = b.Where(test, b.Gather(yes, 0, at), b.Gather(no, 0, at))
	}
	return at
}

func compareBranch(b *core.Builder, mode int, x, t *ir.Value) *ir.Value {
	switch mode {
	case branchLE:
		return b.Le(x, t)
	case branchLT:
		return b.Lt(x, t)
	case branchGE:
		return b.Le(t, x)
	case branchGT:
		return b.Lt(t, x)
	case branchEQ:
		return b.Eq(x, t)
	}
	return b.Not(b.Eq(x, t))
}

// scores combines the votes of all trees, [rows, outs].
func (f *forest) scores(c *Ctx, x *ir.Value, combine string) *ir.Value {
	b := c.B
	s := core.Shape(x)
	if len(f.roots) == 0 || s[0] == 0 {
		return b.BroadcastTo(b.Like(x, 0), s[0], f.outs)
	}
	none := map[string]float64{"SUM": 0, "AVERAGE": 0, "MIN": math.Inf(1), "MAX": math.Inf(-1)}
	w := tensor.New(x.DType(), len(f.nodes), f.outs)
	for i := range w.Len() {
		w.SetFloat(i, none[combine])
	}
	for leaf, vs := range f.votes {
		for _, v := range vs {
			if v.target < 0 || v.target >= f.outs {
				c.Fail("a leaf votes for target %d of %d", v.target, f.outs)
			}
			i := leaf*f.outs + v.target
			switch combine {
			case "MIN":
				w.SetFloat(i, min(w.Float(i), v.weight))
			case "MAX":
				w.SetFloat(i, max(w.Float(i), v.weight))
			default:
				w.SetFloat(i, w.Float(i)+v.weight)
			}
		}
	}
	if d, ok := f.dense(c, s[0]); ok && combine == "SUM" {
		f.check(c, s[1])
		return d.sums(c, f, x, w)
	}
	y := b.Gather(b.Const(w), 0, f.leaves(c, x)) // [rows, trees, outs]
	switch combine {
	case "SUM":
		return b.Reduce("reduce_sum", y, false, 1)
	case "AVERAGE":
		return b.Mul(b.Reduce("reduce_sum", y, false, 1), b.Like(x, 1/float64(len(f.roots))))
	}
	y = b.Reduce(map[string]string{"MIN": "reduce_min", "MAX": "reduce_max"}[combine], y, false, 1)
	return b.Where(b.Eq(y, b.Like(y, none[combine])), b.Like(y, 0), y) // nobody voted
}

// treeInput is input 0 as rows of f32, or of f64 if it is that.
func (c *Ctx) treeInput() *ir.Value {
	x := c.In(0)
	if x.Rank() == 1 {
		x = c.B.Reshape(x, 1, core.Shape(x)[0])
	}
	if x.Rank() != 2 {
		c.Fail("input %s has no rows", x.Type)
	}
	return c.B.Cast(x, workType(x.DType()))
}

// numbers is a float list attribute, or its _as_tensor form.
func (c *Ctx) numbers(name string) []float64 {
	if t := c.N.TensorAttr(name + "_as_tensor"); t != nil {
		return t.Floats()
	}
	var out []float64
	for _, v := range c.floats(name) {
		out = append(out, float64(v))
	}
	return out
}

// sameLength fails unless all lists of a table are as long as the first.
func (c *Ctx) sameLength(what string, lens ...int) {
	for _, n := range lens[1:] {
		if n != lens[0] {
			c.Fail("%s lists have %d and %d elements", what, lens[0], n)
		}
	}
}

// readForest reads the attributes of the regressor and the classifier; prefix
// is that of the votes.
func (c *Ctx) readForest(prefix string, outs int) *forest {
	f := &forest{votes: map[int][]vote{}, outs: outs}
	v, _ := c.N.Attr("nodes_modes")
	modes, _ := v.([]string)
	trees, ids := c.N.Ints("nodes_treeids"), c.N.Ints("nodes_nodeids")
	yes, no, feat := c.N.Ints("nodes_truenodeids"), c.N.Ints("nodes_falsenodeids"), c.N.Ints("nodes_featureids")
	vals, miss := c.numbers("nodes_values"), c.N.Ints("nodes_missing_value_tracks_true")
	c.sameLength("node", len(modes), len(trees), len(ids), len(yes), len(no), len(feat), len(vals))
	type key struct{ tree, node int }
	at := map[key]int{}
	seen := map[int]bool{}
	for i := range modes {
		at[key{trees[i], ids[i]}] = i
		if !seen[trees[i]] {
			seen[trees[i]] = true
			f.roots = append(f.roots, i)
		}
	}
	find := func(tree, node int) int {
		i, ok := at[key{tree, node}]
		if !ok {
			c.Fail("tree %d has no node %d", tree, node)
		}
		return i
	}
	for i, name := range modes {
		if name == "LEAF" {
			f.nodes = append(f.nodes, treeNode{yes: i, no: i})
			continue
		}
		m, ok := branchNames[name]
		if !ok {
			c.Unsupported("nodes_modes %q", name)
		}
		f.nodes = append(f.nodes, treeNode{mode: m, feature: feat[i], value: vals[i], missing: i < len(miss) && miss[i] != 0, yes: find(trees[i], yes[i]), no: find(trees[i], no[i])})
	}
	vt, vn, vi, vw := c.N.Ints(prefix+"_treeids"), c.N.Ints(prefix+"_nodeids"), c.N.Ints(prefix+"_ids"), c.numbers(prefix+"_weights")
	c.sameLength(prefix, len(vt), len(vn), len(vi), len(vw))
	for i := range vt {
		leaf := find(vt[i], vn[i])
		f.votes[leaf] = append(f.votes[leaf], vote{vi[i], vw[i]})
	}
	return f
}

// base adds base_values to scores.
func (c *Ctx) base(y *ir.Value, outs int) *ir.Value {
	v := c.numbers("base_values")
	if len(v) == 0 {
		return y
	}
	if len(v) != outs && len(v) != 1 {
		c.Fail("%d base_values for %d results", len(v), outs)
	}
	t := tensor.New(y.DType(), len(v))
	for i, x := range v {
		t.SetFloat(i, x)
	}
	return c.B.Add(y, c.B.Const(t))
}

func expandTreeRegressor(c *Ctx) {
	outs := c.N.Int("n_targets", 1)
	combine := c.OneOf("aggregate_function", c.N.Str("aggregate_function", "SUM"), "SUM", "AVERAGE", "MIN", "MAX")
	y := c.readForest("target", outs).scores(c, c.treeInput(), combine)
	c.Out(0, c.postTransform(c.B.Cast(c.base(y, outs), tensor.F32)))
}

func expandTreeClassifier(c *Ctx) {
	b := c.B
	names, ids := c.strings("classlabels_strings"), c.N.Ints("classlabels_int64s")
	outs := max(len(names), len(ids))
	if outs < 2 {
		c.Unsupported("a classifier with %d classes", outs)
	}
	f := c.readForest("class", outs)
	y := b.Cast(c.base(f.scores(c, c.treeInput(), "SUM"), outs), tensor.F32)
	if outs == 2 && len(f.votes) > 0 {
		y = c.oneScore(f, y)
	}
	c.labels(0, b.Drop(b.ArgReduce("argmax", y, 1, false), 1), names, ids)
	c.Out(1, c.postTransform(y))
}

// oneScore splits the score of two classes where all votes are for class 0, by
// which converters mean the one score of the second class: a probability, or
// odds for LOGISTIC. In all other such cases implementations disagree.
func (c *Ctx) oneScore(f *forest, y *ir.Value) *ir.Value {
	b := c.B
	var votes [2]int
	positive := true
	for _, vs := range f.votes {
		for _, v := range vs {
			votes[v.target]++
			positive = positive && v.weight >= 0
		}
	}
	if votes[0] > 0 && votes[1] > 0 {
		return y
	}
	s := b.SliceAxis(y, 1, 0, 1)
	switch kind := c.N.Str("post_transform", "NONE"); {
	case votes[1] == 0 && positive && kind == "NONE":
		return b.Concat(1, b.Sub(b.Like(s, 1), s), s)
	case votes[1] == 0 && !positive && kind == "LOGISTIC":
		return b.Concat(1, b.Neg(s), s)
	default:
		c.Unsupported("votes for one of two classes with post_transform=%q, on which implementations disagree,", kind)
	}
	return nil
}

func expandTreeEnsemble(c *Ctx) {
	x := c.treeInput()
	kinds := []string{"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"}
	combines := []string{"AVERAGE", "SUM", "MIN", "MAX"}
	post, agg := c.N.Int("post_transform", 0), c.N.Int("aggregate_function", 1)
	if post < 0 || post >= len(kinds) || agg < 0 || agg >= len(combines) {
		c.Unsupported("post_transform=%d with aggregate_function=%d", post, agg)
	}
	y := c.readTrees().scores(c, x, combines[agg])
	c.Out(0, c.B.Cast(c.transformScores(kinds[post], y), c.In(0).DType()))
}

// readTrees reads the attributes of TreeEnsemble, which lists branches and
// leaves apart: leaves follow the branches here, and membership in a set
// becomes a chain of equalities.
func (c *Ctx) readTrees() *forest {
	must := func(name string) *tensor.Tensor {
		t := c.N.TensorAttr(name)
		if t == nil {
			c.Fail("attribute %s is missing", name)
		}
		return t
	}
	split, modes, weights := must("nodes_splits").Floats(), must("nodes_modes"), must("leaf_weights").Floats()
	feat, targets := c.N.Ints("nodes_featureids"), c.N.Ints("leaf_targetids")
	yes, no := c.N.Ints("nodes_truenodeids"), c.N.Ints("nodes_falsenodeids")
	yesLeaf, noLeaf := c.N.Ints("nodes_trueleafs"), c.N.Ints("nodes_falseleafs")
	miss := c.N.Ints("nodes_missing_value_tracks_true")
	n := modes.Len()
	c.sameLength("node", n, len(split), len(feat), len(yes), len(no), len(yesLeaf), len(noLeaf))
	c.sameLength("leaf", len(targets), len(weights))
	f := &forest{votes: map[int][]vote{}, outs: c.N.Int("n_targets", 1), roots: c.N.Ints("tree_roots"), nodes: make([]treeNode, n)}
	sets := c.readSets()
	for i, t := range targets {
		f.votes[n+i] = []vote{{t, weights[i]}}
		f.nodes = append(f.nodes, treeNode{yes: n + i, no: n + i})
	}
	to := func(i, leaf int) int {
		if leaf != 0 {
			return n + i
		}
		return i
	}
	for i := range n {
		b := treeNode{mode: int(modes.Int(i)), feature: feat[i], value: split[i], missing: i < len(miss) && miss[i] != 0, yes: to(yes[i], yesLeaf[i]), no: to(no[i], noLeaf[i])}
		if b.mode < 0 || b.mode >= branchModes {
			c.Unsupported("nodes_modes %d", b.mode)
		}
		f.nodes[i] = b
		if b.mode == branchIn {
			if len(sets) == 0 {
				c.Fail("membership_values has fewer sets than there are membership nodes")
			}
			f.chain(i, sets[0])
			sets = sets[1:]
		}
	}
	return f
}

// readSets splits membership_values at the NaN that ends each set.
func (c *Ctx) readSets() [][]float64 {
	t := c.N.TensorAttr("membership_values")
	if t == nil {
		return nil
	}
	var sets [][]float64
	var set []float64
	for _, v := range t.Floats() {
		if math.IsNaN(v) {
			sets, set = append(sets, set), nil
			continue
		}
		set = append(set, v)
	}
	return sets
}

// chain turns node i into one test for equality per member.
func (f *forest) chain(i int, set []float64) {
	n := f.nodes[i]
	n.mode = branchEQ
	if len(set) == 0 {
		n.value = math.NaN() // equal to nothing
		f.nodes[i] = n
		return
	}
	for k, v := range set {
		n.value = v
		at := i
		if k > 0 {
			at = len(f.nodes)
			f.nodes = append(f.nodes, n)
		}
		f.nodes[at] = n
		if k+1 < len(set) {
			f.nodes[at].no = len(f.nodes)
		}
	}
}
