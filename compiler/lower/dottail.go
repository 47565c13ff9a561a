package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// fewPay reports that a tile whose only vector is mostly empty takes less time
// than a sum along the lanes for each result, whose lanes are to be added up.
func (d *tiledDot) fewPay() bool {
	if d.lanes < 8 || d.m < 4 {
		return false
	}
	tile := float64(d.k) * max(0.5, 4/float64(min(d.m, 28)))
	sums := float64(d.n) * (1.5*float64(d.k)/float64(d.lanes) + 14)
	return tile < sums
}

// tail is how many lanes the last vector of a row has if tiles can store such;
// 0: all of them.
func (d *tiledDot) tail(dst *place) int {
	n := d.n % d.lanes
	if d.lanes < 8 || d.kind != loop.TileF32 || dst.layout.As != tensor.Invalid || d.k > longestSum && !d.addsTail(n) {
		return 0
	}
	return n
}

// addsTail reports that a tile can add to the lanes of a tail and read no more:
// registers as wide as that, or masks.
func (d *tiledDot) addsTail(n int) bool { return d.lanes == 16 || n == 4 }
