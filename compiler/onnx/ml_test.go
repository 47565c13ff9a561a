package onnx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func mlCase(name, op string, in, want []*tensor.Tensor, as ...any) rowCase {
	return rowCase{name: name, domain: ml, op: op, in: in, want: want, attrs: attrs(as...)}
}

func list(t ...*tensor.Tensor) []*tensor.Tensor { return t }

func logistic(x float64) float32 { return float32(1 / (1 + math.Exp(-x))) }

func TestFeatureRows(t *testing.T) {
	nan := float32(math.NaN())
	m := f32([]int{2, 2}, 3, -4, 0, 0)
	runRows(t, []rowCase{
		mlCase("scaler", "Scaler", list(i64([]int{1, 2}, 3, 4)), list(f32([]int{1, 2}, 1, 12)), "offset", []float32{1, -2}, "scale", []float32{0.5, 2}),
		mlCase("scaler, one for all", "Scaler", list(m), list(f32([]int{2, 2}, 4, -10, -2, -2)), "offset", []float32{1}, "scale", []float32{2}),
		mlCase("normalizer max", "Normalizer", list(m), list(f32([]int{2, 2}, 0.75, -1, 0, 0)), "norm", "MAX"),
		mlCase("normalizer l1", "Normalizer", list(m), list(f32([]int{2, 2}, 3./7, -4./7, 0, 0)), "norm", "L1"),
		mlCase("normalizer l2", "Normalizer", list(m), list(f32([]int{2, 2}, 0.6, -0.8, 0, 0)), "norm", "L2"),
		mlCase("imputer of NaN", "Imputer", list(f32([]int{1, 2}, nan, 2)), list(f32([]int{1, 2}, 7, 2)), "imputed_value_floats", []float32{7, 8}, "replaced_value_float", math.NaN()),
		mlCase("imputer of integers", "Imputer", list(i64([]int{1, 2}, 5, -1)), list(i64([]int{1, 2}, 5, 9)), "imputed_value_int64s", []int{9}, "replaced_value_int64", -1),
		mlCase("one hot", "OneHotEncoder", list(i64([]int{3}, 4, 6, 5)), list(f32([]int{3, 2}, 1, 0, 0, 0, 0, 1)), "cats_int64s", []int{4, 5}),
		mlCase("feature vector", "FeatureVectorizer", list(f32([]int{1, 2}, 1, 2), i64([]int{1, 1}, 3)), list(f32([]int{1, 3}, 1, 3, 0)), "inputdimensions", []int{1, 2}),
	})
	exact := []rowCase{
		mlCase("one hot of text", "OneHotEncoder", list(texts("b", "x")), list(f32([]int{2, 2}, 0, 1, 0, 0)), "cats_strings", []string{"a", "b"}),
		mlCase("labels 1", "LabelEncoder", list(texts("b", "x")), list(i64([]int{2}, 1, -1)), "classes_strings", []string{"a", "b"}),
		mlCase("labels 1, back", "LabelEncoder", list(i64([]int{2}, 1, 5)), list(texts("b", "?")), "classes_strings", []string{"a", "b"}, "default_string", "?"),
		mlCase("category", "CategoryMapper", list(texts("b", "x")), list(i64([]int{2}, 20, -1)), "cats_strings", []string{"a", "b"}, "cats_int64s", []int{10, 20}),
	}
	runExact(t, exact)
	faulty(t, fault.BadModel, []rowCase{
		mlCase("unknown category", "OneHotEncoder", list(i64([]int{1}, 6)), list(f32([]int{1, 1}, 0)), "cats_int64s", []int{4}, "zeros", 0),
	})
}

// TestLabelTables reads the tables of LabelEncoder's later versions.
func TestLabelTables(t *testing.T) {
	c := mlCase("labels", "LabelEncoder", list(i64([]int{3}, 2, 9, 1)), list(f32([]int{3}, 20, -1, 10)), "keys_int64s", []int{1, 2}, "values_floats", []float32{10, 20}, "default_float", -1.0)
	for _, version := range []int{2, 4} {
		opsets := map[string]int{ml: version}
		got, err := Eval(c.graph(), opsets, []*ir.Data{ir.TensorData(c.in[0])}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !tensor.Equal(got[0].Tensor, c.want[0]) {
			t.Errorf("version %d: %v, want %v", version, got[0].Tensor.Floats(), c.want[0].Floats())
		}
		e, err := Expand(c.graph(), Options{Opsets: opsets})
		if err != nil {
			t.Fatal(err)
		}
		y, err := core.EvalGraph(e.Graph, c.in)
		if err != nil {
			t.Fatal(err)
		}
		if !tensor.Equal(y[0], c.want[0]) {
			t.Errorf("version %d, expanded: %v, want %v", version, y[0].Floats(), c.want[0].Floats())
		}
	}
	c.attrs[2] = attr("default_tensor", i64([]int{1}, 2))
	if _, err := Eval(c.graph(), map[string]int{ml: 4}, []*ir.Data{ir.TensorData(c.in[0])}, nil); fault.KindOf(err) != fault.BadModel {
		t.Errorf("a default of another type: %v", err)
	}
}

func TestLinearRows(t *testing.T) {
	x := f32([]int{2, 2}, 1, 2, 3, -1)
	runRows(t, []rowCase{
		// 1·1 + 2·10 + 0.5, 3·1 - 1·10 + 0.5
		mlCase("regressor", "LinearRegressor", list(x), list(f32([]int{2, 1}, 21.5, -6.5)), "coefficients", []float32{1, 10}, "intercepts", []float32{0.5}),
		mlCase("classifier", "LinearClassifier", list(x), list(i64([]int{2}, 8, 7), f32([]int{2, 2}, 1, 2, 3, -1)), "coefficients", []float32{1, 0, 0, 1}, "classlabels_ints", []int{7, 8}),
		// One score of two classes, as odds for the second.
		mlCase("binary classifier", "LinearClassifier", list(x), list(i64([]int{2}, 1, 0), f32([]int{2, 2}, logistic(-2), logistic(2), logistic(1), logistic(-1))), "coefficients", []float32{0, 1}, "classlabels_ints", []int{0, 1}, "post_transform", "LOGISTIC"),
		mlCase("softmax zero", "LinearRegressor", list(f32([]int{1, 2}, 0, 2)), list(f32([]int{1, 2}, 0, 1)), "coefficients", []float32{1, 0, 0, 1}, "targets", 2, "post_transform", "SOFTMAX_ZERO"),
	})
	text := mlCase("classifier with names", "LinearClassifier", list(x), list(texts("b", "a"), nil), "coefficients", []float32{1, 0, 0, 1}, "classlabels_strings", []string{"a", "b"})
	text.want = text.want[:1]
	runExact(t, []rowCase{text})
}

// twoTrees: tree 0 asks x0 ≤ 1 and then x1 > 0 (NaN: yes); tree 1 is one leaf.
func twoTrees(prefix string) []ir.Attr {
	return attrs("nodes_treeids", []int{0, 0, 0, 0, 0, 1}, "nodes_nodeids", []int{0, 1, 2, 3, 4, 0},
		"nodes_modes", []string{"BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "LEAF", "LEAF"},
		"nodes_featureids", []int{0, 0, 1, 0, 0, 0}, "nodes_values", []float32{1, 0, 0, 0, 0, 0},
		"nodes_truenodeids", []int{1, 0, 3, 0, 0, 0}, "nodes_falsenodeids", []int{2, 0, 4, 0, 0, 0},
		"nodes_missing_value_tracks_true", []int{0, 0, 1, 0, 0, 0},
		prefix+"_treeids", []int{0, 0, 0, 1}, prefix+"_nodeids", []int{1, 3, 4, 0}, prefix+"_weights", []float32{10, 20, 40, 2})
}

func TestTreeRows(t *testing.T) {
	nan := float32(math.NaN())
	x := f32([]int{4, 2}, 1, 5, 2, 5, 2, -5, 2, nan)
	reg := func(name string, want *tensor.Tensor, as ...any) rowCase {
		c := mlCase(name, "TreeEnsembleRegressor", list(x), list(want), as...)
		c.attrs = append(append(twoTrees("target"), attr("target_ids", []int{0, 0, 0, 0})), c.attrs...)
		return c
	}
	col := func(v ...float32) *tensor.Tensor { return f32([]int{4, 1}, v...) }
	class := func(name string, labels, scores *tensor.Tensor, ids []int, as ...any) rowCase {
		c := mlCase(name, "TreeEnsembleClassifier", list(x), list(labels, scores), as...)
		c.attrs = append(append(twoTrees("class"), attr("class_ids", ids), attr("classlabels_int64s", []int{5, 6})), c.attrs...)
		return c
	}
	runRows(t, []rowCase{
		reg("sum", col(12, 22, 42, 22)),
		reg("average, base", col(7, 12, 22, 12), "aggregate_function", "AVERAGE", "base_values", []float32{1}),
		reg("min", col(2, 2, 2, 2), "aggregate_function", "MIN"),
		reg("max", col(10, 20, 40, 20), "aggregate_function", "MAX"),
		// Leaves 1 and 4 vote for class 5, leaf 3 and tree 1 for class 6.
		class("classifier", i64([]int{4}, 5, 6, 5, 6), f32([]int{4, 2}, 10, 2, 0, 22, 40, 2, 0, 22), []int{0, 1, 0, 1}),
		// All votes for class 0 stand for the second: a probability, and the
		// rest for the first.
		class("one score", i64([]int{4}, 6, 6, 6, 6), f32([]int{4, 2}, -11, 12, -21, 22, -41, 42, -21, 22), []int{0, 0, 0, 0}),
	})
	zero := f32([]int{4, 2}, 0, 0, 0, 0, 0, 0, 0, 0)
	refused(t, []rowCase{
		class("one score, transformed", i64([]int{4}, 0, 0, 0, 0), zero, []int{0, 0, 0, 0}, "post_transform", "SOFTMAX"),
		class("votes for the second alone", i64([]int{4}, 0, 0, 0, 0), zero, []int{1, 1, 1, 1}),
	})
	cyclic := reg("a tree that leads back", col(0, 0, 0, 0))
	cyclic.attrs[6] = attr("nodes_falsenodeids", []int{2, 0, 0, 0, 0, 0})
	faulty(t, fault.BadModel, []rowCase{cyclic})
}

// grown is a forest of uneven trees, as attributes and as what walks it.
func grown(r *rand.Rand, trees, depth, features, classes int) (as []ir.Attr, scores func(row []float32) []float64) {
	var tree, node, feature, yes, no, voteTree, voteNode, voteClass []int
	var modes []string
	var values, weights []float32
	type walked struct {
		feature, yes, no int
		value            float32
		votes            []float32
	}
	all := make([][]walked, trees)
	for t := range trees {
		var grow func(d int) int
		grow = func(d int) int {
			id := len(all[t])
			all[t] = append(all[t], walked{feature: -1})
			if d == 0 || id > 0 && r.IntN(6) == 0 {
				for range classes {
					all[t][id].votes = append(all[t][id].votes, float32(r.IntN(8)))
				}
				return id
			}
			f, v := r.IntN(features), float32(r.NormFloat64())
			y := grow(d - 1)
			all[t][id] = walked{feature: f, value: v, yes: y, no: grow(d - 1)}
			return id
		}
		grow(depth)
		for id, n := range all[t] {
			tree, node, values, yes, no = append(tree, t), append(node, id), append(values, n.value), append(yes, n.yes), append(no, n.no)
			feature, modes = append(feature, max(n.feature, 0)), append(modes, map[bool]string{true: "LEAF", false: "BRANCH_LT"}[n.feature < 0])
			for k, v := range n.votes {
				voteTree, voteNode, voteClass, weights = append(voteTree, t), append(voteNode, id), append(voteClass, k), append(weights, v)
			}
		}
	}
	as = attrs("nodes_treeids", tree, "nodes_nodeids", node, "nodes_featureids", feature, "nodes_values", values, "nodes_truenodeids", yes, "nodes_falsenodeids", no,
		"nodes_modes", modes, "target_treeids", voteTree, "target_nodeids", voteNode, "target_ids", voteClass, "target_weights", weights, "n_targets", classes)
	return as, func(row []float32) []float64 {
		sum := make([]float64, classes)
		for _, nodes := range all {
			n := nodes[0]
			for n.feature >= 0 {
				if row[n.feature] < n.value {
					n = nodes[n.yes]
				} else {
					n = nodes[n.no]
				}
			}
			for k, v := range n.votes {
				sum[k] += float64(v)
			}
		}
		return sum
	}
}

// TestManyRowsOfTrees holds that asking all branches at once, and walking on
// from where the upper levels end, gives what walking each row gives.
func TestManyRowsOfTrees(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	var cases []rowCase
	for _, c := range []struct{ rows, depth, classes int }{{9, 1, 1}, {20, 4, 1}, {20, 4, 3}, {17, 6, 1}, {8, 9, 1}, {33, 9, 3}, {7, 5, 1}} {
		const features = 5
		as, scores := grown(r, 6, c.depth, features, c.classes)
		x, want := tensor.New(tensor.F32, c.rows, features), tensor.New(tensor.F32, c.rows, c.classes)
		for i := range c.rows {
			row := tensor.As[float32](x)[i*features : (i+1)*features]
			for k := range row {
				if row[k] = float32(r.NormFloat64()); r.IntN(20) == 0 {
					row[k] = float32(math.NaN())
				}
			}
			for k, v := range scores(row) {
				want.SetFloat(i*c.classes+k, v)
			}
		}
		cases = append(cases, rowCase{name: fmt.Sprint(c), domain: ml, op: "TreeEnsembleRegressor", in: list(x), want: list(want), attrs: as})
	}
	runRows(t, cases)
}
