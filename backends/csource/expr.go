package csource

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// cType is the C type of an element.
var cType = map[tensor.DType]string{
	tensor.F32: "float", tensor.F64: "double", tensor.F16: "f16", tensor.BF16: "bf16", tensor.Bool: "u8",
	tensor.I8: "i8", tensor.I16: "i16", tensor.I32: "i32", tensor.I64: "i64",
	tensor.U8: "u8", tensor.U16: "u16", tensor.U32: "u32", tensor.U64: "u64",
}

// operators are scalar functions that C has as binary operators.
var operators = map[string]string{
	"add": "+", "sub": "-", "mul": "*", "eq": "==", "lt": "<", "le": "<=", "and": "&", "or": "|", "xor": "^",
}

// printer writes one kernel.
type printer struct {
	b      *strings.Builder
	indent string
	temps  map[string]string // expression key → C name
	serial int
	needs  map[string]bool
	regs   map[*loop.Reg]string // what stands for a register
	kernel *loop.Kernel
	vector bool            // within a vector loop of one statement
	vars   []*loop.Var     // of the loops around
	teams  strings.Builder // functions of loops that threads share within the kernel
	rows   int             // of the matrix unit's tiles in the function, 0 if it has none
}

func (p *printer) line(format string, args ...any) {
	p.b.WriteString(p.indent)
	fmt.Fprintf(p.b, format, args...)
	p.b.WriteByte('\n')
}

func literal(e *loop.Expr) string {
	if !e.Type.IsFloat() {
		if e.Type == tensor.I64 {
			if e.I == math.MinInt64 {
				return "INT64_MIN"
			}
			if e.I > math.MaxInt32 || e.I < math.MinInt32 {
				return strconv.FormatInt(e.I, 10) + "LL"
			}
			return strconv.FormatInt(e.I, 10)
		}
		if e.Type == tensor.U64 {
			return strconv.FormatUint(uint64(e.I), 10) + "ULL"
		}
		return fmt.Sprintf("(%s)%d", cType[e.Type], e.I)
	}
	if e.Type == tensor.F16 || e.Type == tensor.BF16 {
		return fmt.Sprintf("to_%s_f32(%s)", e.Type, literal(loop.Number(tensor.F32, e.F, 0)))
	}
	suffix, name := "f", "F32"
	if e.Type == tensor.F64 {
		suffix, name = "", "F64"
	}
	switch {
	case math.IsNaN(e.F):
		return name + "_NAN"
	case math.IsInf(e.F, 1):
		return name + "_INF"
	case math.IsInf(e.F, -1):
		return "(-" + name + "_INF)"
	}
	s := strconv.FormatFloat(e.F, 'x', -1, 64) + suffix
	if e.F < 0 || math.Signbit(e.F) {
		return "(" + s + ")"
	}
	return s
}

// expr prints an expression; names of shared parts are used where they exist.
func (p *printer) expr(e *loop.Expr) string {
	if t := p.temps[e.Key()]; t != "" {
		return t
	}
	switch e.Kind {
	case loop.Const:
		return literal(e)
	case loop.VarRef:
		return e.Var.Name
	case loop.RegRef:
		if s := p.regs[e.Reg]; s != "" {
			return s
		}
		return e.Reg.Name
	case loop.Load:
		return e.Buf.Name + "[" + p.expr(e.Args[0]) + "]"
	case loop.Select:
		return "(" + p.expr(e.Args[0]) + " ? " + p.branch(e.Args[1]) + " : " + p.branch(e.Args[2]) + ")"
	case loop.Cast:
		return convert(e.Args[0].Type, e.Type, p.expr(e.Args[0]))
	case loop.Bits:
		return fmt.Sprintf("bits_%s_%s(%s)", e.Type, e.Args[0].Type, p.expr(e.Args[0]))
	}
	return p.call(e)
}

// convert prints a conversion. Narrow floats go through F32, small integers
// are taken from floats by way of i32, whose out-of-range result is defined on
// every target that we build for.
func convert(from, to tensor.DType, s string) string {
	narrow := func(d tensor.DType) bool { return d == tensor.F16 || d == tensor.BF16 }
	switch {
	case from == to:
		return s
	case to == tensor.Bool:
		if narrow(from) {
			s = fmt.Sprintf("f32_%s(%s)", from, s)
		}
		return "(u8)(" + s + " != 0)"
	case narrow(from) && to == tensor.F32:
		return fmt.Sprintf("f32_%s(%s)", from, s)
	case narrow(from):
		return convert(tensor.F32, to, fmt.Sprintf("f32_%s(%s)", from, s))
	case narrow(to) && from == tensor.F64:
		return fmt.Sprintf("to_%s_f64(%s)", to, s)
	case narrow(to) && from == tensor.F32:
		return fmt.Sprintf("to_%s_f32(%s)", to, s)
	case narrow(to):
		return fmt.Sprintf("to_%s_f64((double)%s)", to, s)
	case from.IsFloat() && to.IsInteger() && to.Bits() <= 32 && to != tensor.U32:
		return fmt.Sprintf("((%s)(i32)(%s))", cType[to], s)
	case from.IsFloat() && to == tensor.U32:
		return fmt.Sprintf("((u32)(i64)(%s))", s)
	case from.IsFloat() && to == tensor.U64:
		return fmt.Sprintf("u64_f64((double)%s)", s)
	}
	return fmt.Sprintf("((%s)%s)", cType[to], s)
}

// wraps reports integer types that C computes in int: results are cut back.
func wraps(d tensor.DType) bool { return d.IsInteger() && d.Bits() < 32 }

func (p *printer) call(e *loop.Expr) string {
	args := make([]string, len(e.Args))
	for i, a := range e.Args {
		args[i] = p.expr(a)
	}
	in := e.Args[0].Type
	var s string
	op, isOp := operators[e.Fn]
	switch {
	case e.Fn == "and" && e.Type == tensor.Bool:
		return "(" + args[0] + " && " + args[1] + ")"
	case e.Fn == "or" && e.Type == tensor.Bool:
		return "(" + args[0] + " || " + args[1] + ")"
	case e.Fn == "xor" && e.Type == tensor.Bool:
		return "(" + args[0] + " != " + args[1] + ")"
	case isOp:
		s = "(" + args[0] + " " + op + " " + args[1] + ")"
	case e.Fn == "div" && in.IsFloat():
		s = "(" + args[0] + " / " + args[1] + ")"
	case e.Fn == "neg":
		s = "(-" + args[0] + ")"
	case e.Fn == "not" && e.Type == tensor.Bool:
		return "(u8)!" + args[0]
	case e.Fn == "not":
		s = "(~" + args[0] + ")"
	case e.Fn == "idiv", e.Fn == "imod":
		return p.quotient(e, args)
	case e.Fn == "clamp":
		return "clamp_index(" + strings.Join(args, ", ") + ")"
	case (e.Fn == "max" || e.Fn == "min") && in.IsFloat() && e.Args[1].Kind == loop.Const && !math.IsNaN(e.Args[1].F):
		s = e.Fn + "c_" + in.String() + "(" + args[0] + ", " + args[1] + ")"
	default:
		s = e.Fn + "_" + in.String() + "(" + strings.Join(args, ", ") + ")"
	}
	if wraps(e.Type) {
		return "((" + cType[e.Type] + ")" + s + ")"
	}
	return s
}

// quotient divides an index; C's operators are those of floor where the
// operand cannot be negative.
func (p *printer) quotient(e *loop.Expr, args []string) string {
	lo, hi := loop.Range(e.Args[0])
	if lo < 0 {
		return "floor_" + e.Fn[1:] + "(" + args[0] + ", " + args[1] + ")"
	}
	op := map[string]string{"idiv": "/", "imod": "%"}[e.Fn]
	if hi < math.MaxInt32 { // 32-bit division is several times faster
		return "((i64)((u32)" + args[0] + " " + op + " " + args[1] + "u))"
	}
	return "(" + args[0] + " " + op + " " + args[1] + ")"
}

// trivial expressions are never given a name.
func trivial(e *loop.Expr) bool {
	return e.Kind == loop.Const || e.Kind == loop.VarRef || e.Kind == loop.RegRef
}

// shared lists the subexpressions that occur more than once, inner ones first.
// Inside the branches of a choice only those are listed that also occur
// outside: a load that a condition guards must stay behind it.
func shared(roots ...*loop.Expr) []*loop.Expr {
	count := map[string]int{}
	var order []*loop.Expr
	var visit func(e *loop.Expr)
	visit = func(e *loop.Expr) {
		if trivial(e) {
			return
		}
		k := e.Key()
		count[k]++
		if count[k] > 1 {
			return
		}
		if e.Kind == loop.Select {
			visit(e.Args[0])
		} else {
			for _, a := range e.Args {
				visit(a)
			}
		}
		order = append(order, e)
	}
	for _, r := range roots {
		visit(r)
	}
	var out []*loop.Expr
	for _, e := range order {
		if count[e.Key()] > 1 {
			out = append(out, e)
		}
	}
	return out
}

// ahead lists the loads behind choices that may be done whatever is chosen. A C
// compiler must not do so itself, and makes no vectors of a loop with branches;
// of local arrays it knows the size.
func ahead(roots ...*loop.Expr) (out []*loop.Expr) {
	seen := map[*loop.Expr]bool{}
	var visit func(e *loop.Expr, chosen bool)
	visit = func(e *loop.Expr, chosen bool) {
		if trivial(e) || seen[e] && !chosen {
			return
		}
		seen[e] = true
		if chosen && e.Kind == loop.Load && e.Buf.Space != loop.Local && inside(e) {
			out = append(out, e)
			return
		}
		for i, a := range e.Args {
			visit(a, chosen || e.Kind == loop.Select && i > 0)
		}
	}
	for _, r := range roots {
		visit(r, false)
	}
	return out
}

// name gives shared subexpressions C names, in the current scope; undo takes
// them back.
func (p *printer) name(roots ...*loop.Expr) (undo func()) {
	var keys []string
	for _, e := range append(ahead(roots...), shared(roots...)...) {
		if p.temps[e.Key()] != "" {
			continue
		}
		s := p.expr(e)
		p.serial++
		n := fmt.Sprintf("e%d", p.serial)
		p.line("const %s %s = %s;", cType[e.Type], n, s)
		p.temps[e.Key()] = n
		keys = append(keys, e.Key())
	}
	return func() {
		for _, k := range keys {
			delete(p.temps, k)
		}
	}
}

// branch prints one side of a choice; what it shares within is named inside.
func (p *printer) branch(e *loop.Expr) string {
	if len(shared(e)) == 0 {
		return p.expr(e)
	}
	outer, in := p.b, p.indent
	p.b, p.indent = &strings.Builder{}, " "
	undo := p.name(e)
	s := p.expr(e)
	body := strings.ReplaceAll(p.b.String(), "\n", "")
	undo()
	p.b, p.indent = outer, in
	if body == "" {
		return s
	}
	return "({" + body + " " + s + "; })"
}
