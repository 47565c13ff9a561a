package onnx

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
)

func TestSupportVectors(t *testing.T) {
	x := f32([]int{1, 2}, 1, 1)
	svr := func(name string, want float64, as ...any) rowCase {
		as = append(as, "support_vectors", []float32{0, 0, 1, 0}, "coefficients", []float32{2, -1}, "rho", []float32{0.5}, "n_supports", 2)
		return mlCase(name, "SVMRegressor", list(x), list(f32([]int{1, 1}, float32(want))), as...)
	}
	// Products with the vectors are 0 and 1, squares of distances 2 and 1.
	runRows(t, []rowCase{
		svr("rbf", 2*math.Exp(-1)-math.Exp(-0.5)+0.5, "kernel_type", "RBF", "kernel_params", []float32{0.5, 0, 0}),
		svr("poly", 2*1-4+0.5, "kernel_type", "POLY", "kernel_params", []float32{1, 1, 2}),
		svr("sigmoid", 2*math.Tanh(0.25)-math.Tanh(0.75)+0.5, "kernel_type", "SIGMOID", "kernel_params", []float32{0.5, 0.25, 0}),
		svr("linear, one class", -1, "kernel_type", "LINEAR", "one_class", 1),
		mlCase("no vectors", "SVMRegressor", list(x), list(f32([]int{1, 1}, 5.5)), "coefficients", []float32{2, 3}, "rho", []float32{0.5}),
	})
	// Vectors 1, 2, 3 of a class each make 2, 4, 6 of 2. The pair 0, 1 has
	// 2·1 − 4·1 + 1, the pair 0, 2 has 2·3 + 6·2 − 20, the pair 1, 2 has
	// −4·2 + 6·1 + 5: 1, 2 and 1 win.
	svc := func(name string, as ...any) rowCase {
		as = append(as, "support_vectors", []float32{1, 2, 3}, "vectors_per_class", []int{1, 1, 1}, "coefficients", []float32{1, -1, 2, 3, -2, 1}, "rho", []float32{1, -20, 5}, "classlabels_ints", []int{7, 8, 9})
		return mlCase(name, "SVMClassifier", list(f32([]int{1, 1}, 2)), list(i64([]int{1}, 8), f32([]int{1, 3}, -1, -2, 3)), as...)
	}
	runRows(t, []rowCase{svc("three classes")})
	refused(t, []rowCase{svc("probabilities", "prob_a", []float32{1, 1, 1})})
	faulty(t, fault.BadModel, []rowCase{
		mlCase("vectors of another width", "SVMRegressor", list(x), list(x), "support_vectors", []float32{1, 2, 3}, "coefficients", []float32{2}, "rho", []float32{0}, "n_supports", 1),
	})
}
