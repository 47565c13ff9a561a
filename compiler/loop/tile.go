package loop

// Red is one reduction loop of a tile: N steps, each of which moves the
// broadcast operand by XStep and the vector operand by WStep elements.
type Red struct {
	N            int
	XStep, WStep int
}

// Tile is a register tile of F32: OB vectors of L lanes for each of P points.
//
//	acc[o][p][l] = Init ? B[b + o·L + l] : 0
//	for each combination of the reduction loops:
//	    acc[o][p][l] += W[w + ΣWStep + o·WO + l] · X[x + ΣXStep + XP[p] (+ l if Lanes)]
//	then  S[s + (o·P + p)·L + l] = acc[o][p][l]
//
// With Lanes unset X is one element broadcast to the lanes (contractions); with
// it X is a vector (depthwise windows) and OB is 1. S is either scratch that
// the epilogue reads, or the output itself with SO and SP as strides. Act is
// applied to the sums first: "", "relu", "clip" with bounds.
//
// Sums run in the order of the reduction loops, each step a fused
// multiply-add where the target has one.
type Tile struct {
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
