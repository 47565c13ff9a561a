package lower_test

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestReductionsOfBlocks holds that a reduction over the pixels of channel
// blocks has the channels in its lanes, also where a reshape, a transpose and
// elementwise ops stand between.
func TestReductionsOfBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, 16, 3, 12)
	y := b.Conv(x, b.Const(values(r, tensor.F32, 16, 16, 3, 3)), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1})
	y = b.Transpose(b.Reshape(y, 16, 36), 1, 0)
	b.Output(b.Reduce("reduce_max", b.Mul(y, b.Tanh(y)), false, 0))
	lanes := regexp.MustCompile(`for \w+ < 36 \{\s+vector \w+ < 16 \{`)
	for _, s := range lowered(t, b.G, wide).Steps {
		if text := s.Kernel.String(); s.Kernel.Family == "reduce" && lanes.MatchString(text) {
			return
		} else if s.Kernel.Family == "reduce" {
			t.Fatal(text)
		}
	}
	t.Error("no reduction")
}
