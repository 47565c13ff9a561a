package loop

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Red is one reduction loop of a tile: N steps, each of which moves the
// broadcast operand by XStep and the vector operand by WStep elements.
type Red struct {
	N            int
	XStep, WStep int
}

// Part is a nest of reduction loops at an offset from where a tile's operands
// begin.
type Part struct {
	X, W int
	Red  []Red
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
	// the type of B; the sums are F32 from then on, unless S is of I32, which
	// takes them as they are.
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
//	    for each term (dx, dw):
//	        acc[o][p][l] += W[w + ΣWStep + dw + o·WO + l] · X[x + ΣXStep + dx + XP[p] (+ l if Lanes)]
//	for each of More: the same with its loops, at its offsets
//	then  S[s + o·SO + SP[p] + l] = acc[o][p][l]
//
// With groups of G elements a step is a sum over g of
// W[w + ΣWStep + dw + o·WO + l·G + g] · X[x + ΣXStep + dx + XP[p] + g], in any
// order.
//
// With Lanes unset X is one element broadcast to the lanes (contractions); with
// it X is a vector (depthwise windows), whose lane l begins l·G further on, and
// OB is 1. S is either scratch that
// the epilogue reads, or the output itself with SO and SP as strides. Act is
// applied to the sums first: "", "relu", "clip" with bounds.
//
// Sums run in the order of the reduction loops, each step a fused
// multiply-add where the target has one; those of a Matrix tile in any order. S
// and Add hold F32 or BF16; values are rounded to nearest even when they are
// stored.
type Tile struct {
	Kind       TileKind
	OB, P, L   int
	X, W, B, S *Buffer // B may be nil
	XAt, WAt   *Expr
	BAt, SAt   *Expr
	XP         []int // offset of each point in X
	WO         int
	SO         int
	SP         []int  // offset of each point in S
	Red        []Red  // outermost first
	More       []Part // sums that do not fit one nest, such as a last block with fewer steps
	Lanes      bool
	// Across goes with Lanes: the elements of a group lie L apart in X, and lane l
	// begins l further on. X is then pixels of L channels, and a group is
	// neighbouring pixels.
	Across bool
	Act    string
	Lo, Hi float32
	Add    *Buffer // not nil: after the bias, before Act, add Add[AddAt + o·AO + AP[p] + l]
	AddAt  *Expr
	AO     int
	AP     []int
	// Prefetch is how many bytes ahead of W to prefetch; 0 for none.
	Prefetch int
	// Tail is how many lanes of the last vector exist: the others are not added to,
	// nor stored. 0 is all of them.
	Tail int
	// Matrix marks a tile for a matrix unit, which has the form that Check
	// demands: the points are one or two runs of Rows points; a run is a
	// matrix of Rows rows of 64 bytes of X, equally far apart, and each of the OB
	// vectors goes with a matrix of 16 rows of 64 bytes of W, WStep of the
	// innermost loop apart. It means the same as without the mark. All Matrix
	// tiles of a kernel have the same Rows.
	Matrix bool
	Rows   int
	// Terms are what each step sums: pairs of offsets in X and in W, in elements.
	// None is the one term {0, 0}. Products of values in several parts have more:
	// those of two parts, high and low, are low·high + high·high + high·low.
	Terms [][2]int
}

// MatrixLanes is the number of lanes of a Matrix tile, and of the steps that
// one product of matrices takes at once.
const MatrixLanes = 16

// Steps is the number of multiply-adds per accumulator.
func (t *Tile) Steps() int {
	n := max(len(t.Terms), 1)
	all := 0
	for _, p := range t.Parts() {
		steps := 1
		for _, r := range p.Red {
			steps *= r.N
		}
		all += steps
	}
	return n * all
}

// Stored is how many lanes of a vector are stored.
func (t *Tile) Stored(o int) int {
	if t.Tail > 0 && o == t.OB-1 {
		return t.Tail
	}
	return t.L
}

// Parts are the nests of a tile, Red first.
func (t *Tile) Parts() []Part { return append([]Part{{Red: t.Red}}, t.More...) }

// Products are the terms of each step, never none.
func (t *Tile) Products() [][2]int {
	if len(t.Terms) == 0 {
		return [][2]int{{}}
	}
	return t.Terms
}

// Check says what is wrong with a tile, nil if nothing is.
func (t *Tile) Check() error {
	switch {
	case t.X == nil || t.W == nil || t.S == nil || t.XAt == nil || t.WAt == nil || t.SAt == nil || t.B != nil && t.BAt == nil || t.Add != nil && t.AddAt == nil:
		return fmt.Errorf("a tile lacks operands")
	case t.OB < 1 || t.P < 1 || t.L < 1:
		return fmt.Errorf("a tile of %d×%d×%d", t.OB, t.P, t.L)
	case len(t.XP) != t.P || len(t.SP) != t.P || t.Add != nil && len(t.AP) != t.P:
		return fmt.Errorf("a tile of %d points has offsets of %d, %d and %d", t.P, len(t.XP), len(t.SP), len(t.AP))
	case t.Tail < 0 || t.Tail >= t.L || t.Tail > 0 && (t.Lanes || t.Matrix || t.Kind != TileF32 || t.S.Type != tensor.F32 || t.Add != nil && t.Add.Type != tensor.F32):
		return fmt.Errorf("a tile whose last vector of %d lanes has %d", t.L, t.Tail)
	case t.S.Type == tensor.I32 && (t.Kind != TileU8S8 || t.Add != nil || t.Act != ""):
		return fmt.Errorf("a tile of whole sums with more than those")
	case t.Across && (!t.Lanes || t.Kind != TileU8S8):
		return fmt.Errorf("a tile across pixels that is no depthwise one of bytes")
	case t.Lanes && (t.OB != 1 || len(t.Terms) > 0):
		return fmt.Errorf("a depthwise tile of %d vectors and %d terms", t.OB, len(t.Terms))
	}
	if t.Matrix {
		return t.checkMatrix()
	}
	return nil
}

func (t *Tile) checkMatrix() error {
	x, w := t.Kind.Operands()
	switch {
	case t.Kind != TileBF16 && t.Kind != TileU8S8 || t.X.Type != x || t.W.Type != w || t.Lanes:
		return fmt.Errorf("a matrix tile of %s·%s", t.X.Type, t.W.Type)
	case t.L != MatrixLanes || t.OB > 2:
		return fmt.Errorf("a matrix tile of %d vectors of %d lanes, which has 1 or 2 of %d", t.OB, t.L, MatrixLanes)
	case t.Rows < 1 || t.Rows > 16 || t.P != t.Rows && t.P != 2*t.Rows:
		return fmt.Errorf("a matrix tile of %d points in runs of %d", t.P, t.Rows)
	case len(t.Red) == 0 || len(t.More) > 0:
		return fmt.Errorf("a matrix tile without a sum, or with several")
	}
	for p := range t.P {
		if p%t.Rows > 1 && t.XP[p]-t.XP[p-1] != t.Stride(p/t.Rows) {
			return fmt.Errorf("a run of a matrix tile whose points are %d apart and then %d", t.Stride(p/t.Rows), t.XP[p]-t.XP[p-1])
		}
	}
	if in := t.Red[len(t.Red)-1]; in.N != MatrixLanes || in.XStep != t.Kind.Group() {
		return fmt.Errorf("a matrix tile whose innermost loop has %d steps of %d, not %d of %d", in.N, in.XStep, MatrixLanes, t.Kind.Group())
	}
	return nil
}

// Stride is how far the points of a run of a Matrix tile are apart in X.
func (t *Tile) Stride(run int) int {
	if t.Rows < 2 {
		return 0
	}
	return t.XP[run*t.Rows+1] - t.XP[run*t.Rows]
}
