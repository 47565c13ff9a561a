package loop

import "github.com/lathe-ml/lathe/compiler/tensor"

// Red is one reduction loop of a tile: N steps, each of which moves the
// broadcast operand by XStep and the vector operand by WStep elements.
type Red struct {
	N            int
	XStep, WStep int
}

// TileKind says what the operands of a tile are.
type TileKind uint8

// The kinds of tiles.
const (
	// TileF32 multiplies F32. W may hold F16, which is widened.
	TileF32 TileKind = iota
	// TileBF16 multiplies pairs of BF16 and sums in F32. Denormal operands and
	// sums may count as zero.
	TileBF16
	// TileU8S8 multiplies quads of U8 (X) and I8 (W) and sums in I32, which is
	// the type of B; the sums are F32 from then on.
	TileU8S8
)

// Group is how many neighbouring elements of each operand one step of a lane
// multiplies.
func (k TileKind) Group() int { return 1 << k }

// Operands are the types that X and W have.
func (k TileKind) Operands() (x, w tensor.DType) {
	switch k {
	case TileBF16:
		return tensor.BF16, tensor.BF16
	case TileU8S8:
		return tensor.U8, tensor.I8
	}
	return tensor.F32, tensor.F32
}

// Tile is a register tile: OB vectors of L lanes for each of P points. With a
// Kind of F32, whose groups are single elements:
//
//	acc[o][p][l] = Init ? B[b + o·L + l] : 0
//	for each combination of the reduction loops:
//	    acc[o][p][l] += W[w + ΣWStep + o·WO + l] · X[x + ΣXStep + XP[p] (+ l if Lanes)]
//	then  S[s + (o·P + p)·L + l] = acc[o][p][l]
//
// With groups of G elements a step is a sum over g of
// W[w + ΣWStep + o·WO + l·G + g] · X[x + ΣXStep + XP[p] + g], in any order.
//
// With Lanes unset X is one element broadcast to the lanes (contractions); with
// it X is a vector (depthwise windows), whose lane l begins l·G further on, and
// OB is 1. S is either scratch that
// the epilogue reads, or the output itself with SO and SP as strides. Act is
// applied to the sums first: "", "relu", "clip" with bounds.
//
// Sums run in the order of the reduction loops, each step a fused
// multiply-add where the target has one. S and Add hold F32 or BF16; values
// are rounded to nearest even when they are stored.
type Tile struct {
	Kind       TileKind
	OB, P, L   int
	X, W, B, S *Buffer // B may be nil
	XAt, WAt   *Expr
	BAt, SAt   *Expr
	XP         []int // offset of each point in X
	WO         int
	SO         int
	SP         []int // offset of each point in S
	Red        []Red // outermost first
	Lanes      bool
	Act        string
	Lo, Hi     float32
	Add        *Buffer // not nil: after the bias, before Act, add Add[AddAt + o·AO + AP[p] + l]
	AddAt      *Expr
	AO         int
	AP         []int
	// Prefetch is how many bytes ahead of W to prefetch; 0 for none.
	Prefetch int
}

// Steps is the number of multiply-adds per accumulator.
func (t *Tile) Steps() int {
	n := 1
	for _, r := range t.Red {
		n *= r.N
	}
	return n
}
