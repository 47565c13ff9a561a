package lower

import "github.com/lathe-ml/lathe/compiler/ir"

// tiledConv is the geometry of a convolution that the register tiles serve.
type tiledConv struct {
	lo, hi [2]int
}

func (l *lowerer) tiled(n *ir.Node) *tiledConv { return nil }

func (l *lowerer) emitTiledConv(g *group) (bool, error) { return false, nil }

func (l *lowerer) emitTiledDot(g *group) (bool, error) { return false, nil }
