package lower_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestExtremesAcross holds that extremes along any axis are where the evaluator
// finds them, the first or the last of equal ones, over planes and over channel
// blocks, also where lines are not whole chunks.
func TestExtremesAcross(t *testing.T) {
	for _, shape := range [][]int{{2, 21, 5, 9}, {1, 3, 40, 26}, {7, 12}, {5, 2, 3}} {
		for axis := range shape {
			for _, op := range []string{"argmax", "argmin"} {
				for last := range 2 {
					t.Run(fmt.Sprint(shape, axis, op, last), func(t *testing.T) {
						b := core.NewBuilder("g")
						x := b.Input("x", tensor.F32, shape...)
						x = b.Floor(b.Mul(x, b.Like(x, 2))) // with ties
						b.Output(b.Node(op, []*ir.Value{x}, "axis", axis, "last", last))
						for _, o := range []lower.Options{wide, {Lanes: 8, Regs: 16}} {
							lowered(t, b.G, o)
						}
					})
				}
			}
		}
	}
	b := core.NewBuilder("classes")
	w := tensor.New(tensor.F32, 21, 16, 1, 1)
	for i := range w.Len() {
		w.SetFloat(i, float64(i%13-6)/8)
	}
	one := []int{1, 1}
	y := b.Conv(b.Input("x", tensor.F32, 1, 16, 6, 11), b.Const(w), core.ConvSpec{Strides: one, Dilations: one, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1})
	b.Output(b.Node("argmax", []*ir.Value{y}, "axis", 1, "last", 0))
	if p := lowered(t, b.G, wide); !slices.Contains(families(p), "arg") {
		t.Errorf("kernels are %v", families(p))
	}
}
