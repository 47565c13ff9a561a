package backendtest

import (
	"context"
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// CheckRandom compares what a backend computes from a random graph with the
// evaluation of its ops.
func CheckRandom(ctx context.Context, be backend.Backend, o Options, r *Random) error {
	want, err := core.EvalGraph(r.Graph, r.Inputs)
	if err != nil {
		return fmt.Errorf("evaluation: %w", err)
	}
	if r.Exact { // the precision whose sums are exact where all sums are whole numbers
		o.Lower.Precision = precision.IEEE
	}
	got, err := Run(ctx, be, o, r.Graph, r.Inputs)
	if err != nil {
		return err
	}
	for i := range want {
		if err := differ(got[i], want[i], r.Exact); err != nil {
			return fmt.Errorf("output %d (%s): %w", i, r.Graph.Outputs[i].Name, err)
		}
	}
	return nil
}

// inexact is the allowed difference, relative to the largest element: some
// twenty ops, each of a few units in the last place, and sums in any order.
const inexact = 2e-4

func differ(got, want *tensor.Tensor, exact bool) error {
	if got.String() != want.String() {
		return fmt.Errorf("is %s, want %s", got, want)
	}
	scale := 1.0
	if want.DType.IsFloat() {
		for _, v := range want.Floats() {
			if a := math.Abs(v); a > scale && !math.IsInf(a, 0) {
				scale = a
			}
		}
	}
	for i := range want.Len() {
		if !want.DType.IsFloat() {
			if a, b := got.Int(i), want.Int(i); a != b {
				return fmt.Errorf("%s: element %d is %d, want %d", want, i, a, b)
			}
			continue
		}
		a, b := got.Float(i), want.Float(i)
		same := a == b || a != a && b != b
		if !exact {
			same = same || math.Abs(a-b) <= inexact*scale
		}
		if !same {
			return fmt.Errorf("%s: element %d is %v, want %v", want, i, a, b)
		}
	}
	return nil
}
