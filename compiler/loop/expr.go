package loop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Kind is the form of an expression.
type Kind uint8

// The forms of expressions.
const (
	Const  Kind = iota
	VarRef      // a loop variable, I64
	RegRef      // a register
	Load        // Buf[Args[0]]
	Call        // the scalar function Fn of Args
	Select      // Args[0] ? Args[1] : Args[2]; only the chosen one is evaluated
	Cast        // Args[0] as Type
	Bits        // the bits of Args[0] as Type
)

// Var is a loop variable that runs over [0, N).
type Var struct {
	Name string
	N    int
}

// Reg is a scalar that a kernel assigns to.
type Reg struct {
	Name string
	Type tensor.DType
}

// Space says where a buffer lives.
type Space uint8

// The spaces of buffers.
const (
	Param Space = iota // given to the kernel
	Local              // a small scratch array of the kernel, one per thread
)

// Buffer is a flat array of Len elements.
type Buffer struct {
	Name  string
	Type  tensor.DType
	Len   int
	Space Space
	Out   bool // of a Param: the kernel writes it
}

// Expr is an immutable expression. Build it with the functions of this file
// and of index.go, which simplify.
type Expr struct {
	Kind Kind
	Type tensor.DType
	Fn   string
	Args []*Expr
	I    int64   // Const of integer or bool type
	F    float64 // Const of float type
	Var  *Var
	Reg  *Reg
	Buf  *Buffer
	key  string
}

// Int is an index constant.
func Int(v int) *Expr { return &Expr{Kind: Const, Type: tensor.I64, I: int64(v)} }

// Number is a constant of any type: f for floats, i for the rest.
func Number(d tensor.DType, f float64, i int64) *Expr {
	return &Expr{Kind: Const, Type: d, F: f, I: i}
}

// Of is a constant from element i of a tensor.
func Of(t *tensor.Tensor, i int) *Expr {
	if t.DType.IsFloat() {
		return Number(t.DType, t.Float(i), 0)
	}
	return Number(t.DType, 0, t.Int(i))
}

// V reads a loop variable; one with a single value is 0.
func V(v *Var) *Expr {
	if v.N == 1 {
		return Int(0)
	}
	return &Expr{Kind: VarRef, Type: tensor.I64, Var: v}
}

// R reads a register.
func R(r *Reg) *Expr { return &Expr{Kind: RegRef, Type: r.Type, Reg: r} }

// At reads a buffer.
func At(b *Buffer, index *Expr) *Expr {
	return &Expr{Kind: Load, Type: b.Type, Buf: b, Args: []*Expr{index}}
}

// Fn applies a scalar function, named as in the core table, to operands of one
// type; comparisons give Bool.
func Fn(name string, args ...*Expr) *Expr {
	d := args[0].Type
	switch name {
	case "eq", "lt", "le", "isnan":
		d = tensor.Bool
	case "add", "mul", "div", "sub":
		if e := foldIdentity(name, args); e != nil {
			return e
		}
	case "and":
		if d == tensor.Bool {
			return And(args[0], args[1])
		}
	}
	return &Expr{Kind: Call, Type: d, Fn: name, Args: args}
}

// foldIdentity drops exact no-ops: x·1, x/1, x−0 (x+0 would turn −0 into +0).
func foldIdentity(name string, a []*Expr) *Expr {
	is := func(e *Expr, v float64) bool {
		if e.Kind != Const {
			return false
		}
		if e.Type.IsFloat() {
			return e.F == v && !math.Signbit(e.F)
		}
		return float64(e.I) == v
	}
	switch {
	case name == "mul" && is(a[0], 1):
		return a[1]
	case (name == "mul" || name == "div") && is(a[1], 1):
		return a[0]
	case name == "sub" && is(a[1], 0):
		return a[0]
	case name == "add" && is(a[1], 0) && !a[0].Type.IsFloat():
		return a[0]
	}
	return nil
}

// If chooses between two expressions of one type.
func If(c, a, b *Expr) *Expr {
	if c.Kind == Const {
		if c.I != 0 {
			return a
		}
		return b
	}
	if a.Key() == b.Key() {
		return a
	}
	return &Expr{Kind: Select, Type: a.Type, Args: []*Expr{c, a, b}}
}

// To converts a value to another type.
func To(d tensor.DType, e *Expr) *Expr {
	if e.Type == d {
		return e
	}
	if e.Kind == Const {
		t := tensor.New(e.Type)
		if e.Type.IsFloat() {
			t.SetFloat(0, e.F)
		} else {
			t.SetInt(0, e.I)
		}
		return Of(tensor.Convert(t, d), 0)
	}
	if e.Kind == Cast && e.Type == tensor.F32 && e.Args[0].Type == d && (Compute(d) == tensor.F32 || d.IsInteger() && d.Bits() <= 16) {
		return e.Args[0] // widened, and back
	}
	return &Expr{Kind: Cast, Type: d, Args: []*Expr{e}}
}

// Reinterpret reads the bits as another type.
func Reinterpret(d tensor.DType, e *Expr) *Expr {
	if e.Type == d {
		return e
	}
	return &Expr{Kind: Bits, Type: d, Args: []*Expr{e}}
}

// True is the constant truth.
func True() *Expr { return &Expr{Kind: Const, Type: tensor.Bool, I: 1} }

// False is the constant falsehood.
func False() *Expr { return &Expr{Kind: Const, Type: tensor.Bool} }

// And is the conjunction of two conditions; the second is evaluated only if
// the first holds.
func And(a, b *Expr) *Expr {
	switch {
	case a.Kind == Const && a.I != 0:
		return b
	case b.Kind == Const && b.I != 0:
		return a
	case a.Kind == Const:
		return a
	case b.Kind == Const:
		return b
	}
	return &Expr{Kind: Call, Type: tensor.Bool, Fn: "and", Args: []*Expr{a, b}}
}

const longKey = 400

// Key is a text that is equal for equal expressions.
func (e *Expr) Key() string {
	if e.key == "" {
		var b strings.Builder
		e.write(&b)
		e.key = b.String()
		if len(e.key) > longKey {
			// Expressions share subexpressions: written out, their size can
			// double with each level.
			h := sha256.Sum256([]byte(e.key))
			e.key = "#" + hex.EncodeToString(h[:12])
		}
	}
	return e.key
}

func (e *Expr) write(b *strings.Builder) {
	if e.key != "" {
		b.WriteString(e.key)
		return
	}
	switch e.Kind {
	case Const:
		if e.Type.IsFloat() {
			fmt.Fprintf(b, "%s:%s", e.Type, floatText(e.F))
		} else if e.Type == tensor.I64 {
			b.WriteString(strconv.FormatInt(e.I, 10))
		} else {
			fmt.Fprintf(b, "%s:%d", e.Type, e.I)
		}
		return
	case VarRef:
		b.WriteString(e.Var.Name)
		return
	case RegRef:
		b.WriteString("%" + e.Reg.Name)
		return
	case Load:
		b.WriteString(e.Buf.Name)
		b.WriteByte('[')
		b.WriteString(e.Args[0].Key())
		b.WriteByte(']')
		return
	case Call:
		b.WriteString(e.Fn)
	case Select:
		b.WriteString("if")
	case Cast:
		b.WriteString("to_" + e.Type.String())
	case Bits:
		b.WriteString("bits_" + e.Type.String())
	}
	b.WriteByte('(')
	for i, a := range e.Args {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.Key())
	}
	b.WriteByte(')')
}

// floatText prints every float exactly.
func floatText(f float64) string {
	if math.IsNaN(f) {
		return "nan"
	}
	return strconv.FormatFloat(f, 'x', -1, 64)
}

// Walk visits an expression and what it is made of, outside in, shared parts
// once.
func (e *Expr) Walk(f func(*Expr)) {
	seen := map[*Expr]bool{}
	var visit func(x *Expr)
	visit = func(x *Expr) {
		if seen[x] {
			return
		}
		seen[x] = true
		f(x)
		for _, a := range x.Args {
			visit(a)
		}
	}
	visit(e)
}

// Cost estimates the work of one evaluation in units of an addition.
func (e *Expr) Cost() int {
	c := 0
	e.Walk(func(x *Expr) {
		switch x.Kind {
		case Load:
			c++
		case Call:
			switch x.Fn {
			case "div", "sqrt", "mod", "fmod":
				c += 6
			case "exp", "expneg", "log", "tanh", "erf", "pow", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh":
				c += 20
			default:
				c++
			}
		case Select, Cast:
			c++
		}
	})
	return c
}
