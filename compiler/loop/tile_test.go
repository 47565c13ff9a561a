package loop_test

import (
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// matrixTile is a tile of two runs of three points, two vectors, 64 groups.
func matrixTile() *loop.Tile {
	buf := func(name string, d tensor.DType) *loop.Buffer {
		return &loop.Buffer{Name: name, Type: d, Len: 1 << 16}
	}
	return &loop.Tile{
		Kind: loop.TileBF16, OB: 2, P: 6, L: 16, X: buf("x", tensor.BF16), W: buf("w", tensor.BF16), S: buf("s", tensor.F32),
		XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0), XP: []int{0, 32, 64, 128, 160, 192}, SP: []int{0, 16, 32, 48, 64, 80}, SO: 96, WO: 32 * 16 * 4,
		Red: []loop.Red{{N: 4, XStep: 1024, WStep: 512}, {N: 16, XStep: 2, WStep: 32}}, Matrix: true, Rows: 3,
	}
}

// TestMatrixTiles holds which tiles a matrix unit can take, and that each
// condition is one of its own.
func TestMatrixTiles(t *testing.T) {
	if err := matrixTile().Check(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		change func(*loop.Tile)
		want   string
	}{
		{func(t *loop.Tile) { t.Kind = loop.TileF32 }, "a matrix tile of bf16·bf16"},
		{func(t *loop.Tile) { t.Kind = loop.TileU8S8 }, "a matrix tile of bf16·bf16"},
		{func(t *loop.Tile) { t.L = 8 }, "2 vectors of 8 lanes"},
		{func(t *loop.Tile) { t.OB = 3 }, "3 vectors of 16 lanes"},
		{func(t *loop.Tile) { t.Rows = 2 }, "6 points in runs of 2"},
		{func(t *loop.Tile) { t.Rows = 17 }, "6 points in runs of 17"},
		{func(t *loop.Tile) { t.Rows = 0 }, "6 points in runs of 0"},
		{func(t *loop.Tile) { t.Red = nil }, "without a sum"},
		{func(t *loop.Tile) { t.Red = t.Red[:1] }, "has 4 steps of 1024, not 16 of 2"},
		{func(t *loop.Tile) { t.Red[1].XStep = 1 }, "has 16 steps of 1, not 16 of 2"},
		{func(t *loop.Tile) { t.XP[5]++ }, "points are 32 apart and then 33"},
		{func(t *loop.Tile) { t.XP[2]++ }, "points are 32 apart and then 33"},
		{func(t *loop.Tile) { t.Rows, t.P = 6, 6 }, "points are 32 apart and then 64"},
		{func(t *loop.Tile) { t.SP = t.SP[:5] }, "6 points has offsets of 6, 5 and 0"},
		{func(t *loop.Tile) { t.Add, t.AddAt = t.S, loop.Int(0) }, "6 points has offsets of 6, 6 and 0"},
		{func(t *loop.Tile) { t.Add = t.S }, "lacks operands"},
		{func(t *loop.Tile) { t.WAt = nil }, "lacks operands"},
		{func(t *loop.Tile) { t.Lanes, t.OB, t.Terms = true, 1, [][2]int{{1, 0}} }, "a depthwise tile of 1 vectors and 1 terms"},
	} {
		tile := matrixTile()
		c.change(tile)
		if err := tile.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	apart := matrixTile() // the second run has a stride of its own
	apart.XP = []int{0, 32, 64, 500, 564, 628}
	one := matrixTile()
	one.P, one.Rows, one.XP, one.SP = 1, 1, []int{7}, []int{0}
	for _, tile := range []*loop.Tile{apart, one} {
		if err := tile.Check(); err != nil {
			t.Error(err)
		}
	}
}

// TestMatrixTileText holds that terms and the mark are part of what names a
// kernel.
func TestMatrixTileText(t *testing.T) {
	tile := matrixTile()
	k := &loop.Kernel{Family: "t", Body: []loop.Stmt{tile}}
	seen := map[string]bool{k.String(): true}
	for _, change := range []func(){
		func() { tile.Terms = [][2]int{{0, 0}} },
		func() { tile.Terms = [][2]int{{8, 0}, {0, 0}} },
		func() { tile.Matrix, tile.Rows = false, 0 },
		func() { tile.Matrix, tile.Rows = true, 6 },
	} {
		change()
		if seen[k.String()] {
			t.Errorf("two tiles have the text %s", k)
		}
		seen[k.String()] = true
	}
	if !strings.Contains(k.String(), " terms [[8 0] [0 0]] matrix 6\n") {
		t.Error(k)
	}
	if n := tile.Steps(); n != 128 {
		t.Errorf("%d steps, want 4·16·2", n)
	}
}
