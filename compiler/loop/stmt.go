package loop

import "github.com/lathe-ml/lathe/compiler/tensor"

// LoopKind says how the iterations of a loop may run.
type LoopKind uint8

// The kinds of loops.
const (
	Serial LoopKind = iota
	Vector          // iterations are independent but for Accum: a SIMD loop
	Unroll          // serial, written out
)

// Stmt is a statement of a kernel body.
type Stmt interface{ stmt() }

// For runs its body for each value of Var in [0, Var.N). Par marks the outermost
// loop of a kernel whose iterations threads may share.
type For struct {
	Var  *Var
	Kind LoopKind
	Par  bool
	// Team marks a loop inside a kernel, run many times, whose iterations threads
	// may share too. Local arrays are common to them: no iteration touches what
	// another one writes, and no register crosses its boundary.
	Team bool
	Body []Stmt
}

// Store is Buf[Index] = Val.
type Store struct {
	Buf   *Buffer
	Index *Expr
	Val   *Expr
}

// Set assigns a register; the first Set in a scope declares it.
type Set struct {
	Reg  *Reg
	Val  *Expr
	Decl bool
}

// Accum is Reg = Fn(Reg, Val), whose order a Vector loop may change; Fn is
// add, mul, min, max, and, or.
type Accum struct {
	Reg *Reg
	Fn  string
	Val *Expr
}

// Cond runs Then if the condition holds, else Else.
type Cond struct {
	If         *Expr
	Then, Else []Stmt
}

// Zero clears N elements of Buf from From on, or fills each of their bytes.
type Zero struct {
	Buf  *Buffer
	From *Expr
	N    int
	Fill byte
}

func (*For) stmt()   {}
func (*Store) stmt() {}
func (*Set) stmt()   {}
func (*Accum) stmt() {}
func (*Cond) stmt()  {}
func (*Zero) stmt()  {}
func (*Tile) stmt()  {}

// Kernel is one function. Its name is given by whoever collects kernels.
type Kernel struct {
	Family string // pointwise, rows, conv, …: for reports and readable names
	Params []*Buffer
	Locals []*Buffer
	Body   []Stmt
	// Flops and Bytes are what a run computes and touches, for reports and for
	// the choice between one thread and many.
	Flops, Bytes int64
	// Names of the core values it computes, for comments and reports.
	Label string
}

// ParallelLoop is the outermost loop if threads may share it, else nil.
func (k *Kernel) ParallelLoop() *For {
	if len(k.Body) == 1 {
		if f, ok := k.Body[0].(*For); ok && f.Par {
			return f
		}
	}
	return nil
}

// Compute is the type that arithmetic on an element type is done in: the
// narrow floats are widened to F32 and rounded after each op.
func Compute(d tensor.DType) tensor.DType {
	if d.IsFloat() && d.Bits() < 32 {
		return tensor.F32
	}
	return d
}

// Nest wraps a body in loops, outermost first; loops of one iteration vanish.
func Nest(vars []*Var, kinds []LoopKind, body ...Stmt) []Stmt {
	for i := len(vars) - 1; i >= 0; i-- {
		if vars[i].N != 1 {
			body = []Stmt{&For{Var: vars[i], Kind: kinds[i], Body: body}}
		}
	}
	return body
}
