package portable

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxBuffer bounds what a file may ask for.
const maxBuffer = 1 << 40

// Decode reads what Encode wrote. It checks all that later code relies on, so
// that a changed file gives an error.
func Decode(text []byte) (p *program.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(malformed)
			if !ok {
				panic(r)
			}
			p, err = nil, m.error
		}
	}()
	var in fileProgram
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, err
	}
	if in.Format != programFormat {
		return nil, fmt.Errorf("format %d is not known", in.Format)
	}
	p = &program.Program{Name: in.Name, Workspace: size(in.Workspace), Weights: size(in.Weights)}
	bufs := make([]*program.Buf, len(in.Buffers))
	for i, b := range in.Buffers {
		bufs[i] = decodeBuf(b, &in)
	}
	port := func(f filePort, where program.Where, i int) program.Port {
		b := pick(bufs, f.Buffer)
		if n, err := tensor.Count(f.Shape); err != nil || n != b.Len || b.Where != where || b.Index != i || element(f.Type) != b.Type {
			reject("the port %q does not fit its buffer", f.Name)
		}
		return program.Port{Name: f.Name, Type: b.Type, Shape: f.Shape, Buf: b}
	}
	for i, f := range in.Inputs {
		p.Inputs = append(p.Inputs, port(f, program.Input, i))
	}
	for i, f := range in.Outputs {
		p.Outputs = append(p.Outputs, port(f, program.Output, i))
	}
	for _, i := range in.Consts {
		p.Consts = append(p.Consts, &program.Constant{Buf: pick(bufs, i), Fill: func() ([]byte, error) {
			return nil, fmt.Errorf("the weights are in the artifact's weights file")
		}})
	}
	for _, f := range in.Kernels {
		p.Kernels = append(p.Kernels, decodeKernel(f))
	}
	for _, f := range in.Steps {
		s := program.Step{Kernel: pick(p.Kernels, f.Kernel), Label: f.Label, Origin: f.Origin}
		for _, a := range f.Args {
			s.Args = append(s.Args, pick(bufs, a))
		}
		p.Steps = append(p.Steps, s)
	}
	return p, p.Check()
}

func size(n int) int {
	if n < 0 || n > maxBuffer {
		reject("a size of %d bytes", n)
	}
	return n
}

func pick[T any](list []T, i int) T {
	if i < 0 || i >= len(list) {
		reject("item %d of %d is referred to", i, len(list))
	}
	return list[i]
}

// element is an element type that compiled memory holds.
func element(s string) tensor.DType {
	d, ok := tensor.ParseDType(s)
	if !ok || d.Size() == 0 || d.Kind() == tensor.KindComplex || d.IsFloat() && d.Bits() < 16 {
		reject("element type %q", s)
	}
	return d
}

func decodeBuf(f fileBuf, in *fileProgram) *program.Buf {
	b := &program.Buf{Name: f.Name, Where: f.Where, Type: element(f.Type), Len: size(f.Len), Offset: size(f.Offset), Index: f.Index}
	end := b.Offset + b.Size()
	ok := b.Offset%8 == 0
	switch f.Where {
	case program.Arena:
		ok = ok && end <= in.Workspace
	case program.Const:
		ok = ok && end <= in.Weights
	case program.Input:
		ok = f.Index >= 0 && f.Index < len(in.Inputs)
	case program.Output:
		ok = f.Index >= 0 && f.Index < len(in.Outputs)
	default:
		ok = false
	}
	if !ok {
		reject("buffer %q lies outside its memory", f.Name)
	}
	return b
}

type decoder struct {
	vars  []*loop.Var
	regs  []*loop.Reg
	bufs  []*loop.Buffer
	exprs []*loop.Expr
}

func decodeKernel(f fileKernel) *loop.Kernel {
	k := &loop.Kernel{Family: f.Family, Flops: f.Flops, Bytes: f.Bytes, Label: f.Label}
	d := &decoder{}
	param := func(q fileParam, s loop.Space) *loop.Buffer {
		b := &loop.Buffer{Name: q.Name, Type: element(q.Type), Len: size(q.Len), Space: s, Out: q.Out}
		d.bufs = append(d.bufs, b)
		return b
	}
	for _, q := range f.Params {
		k.Params = append(k.Params, param(q, loop.Param))
	}
	for _, q := range f.Locals {
		k.Locals = append(k.Locals, param(q, loop.Local))
	}
	for _, v := range f.Vars {
		if v.N < 0 {
			reject("loop variable %s runs to %d", v.Name, v.N)
		}
		d.vars = append(d.vars, &loop.Var{Name: v.Name, N: v.N})
	}
	for _, r := range f.Regs {
		d.regs = append(d.regs, &loop.Reg{Name: r.Name, Type: element(r.Type)})
	}
	for _, e := range f.Exprs {
		d.exprs = append(d.exprs, d.expr(e))
	}
	k.Body = d.body(f.Body)
	return k
}

// arity is how many operands the scalar functions with three have; others have
// one or two, which making them ready checks.
func arity(f fileExpr) (lo, hi int) {
	switch f.Kind {
	case "load", "to", "bits":
		return 1, 1
	case "if":
		return 3, 3
	case "call":
		if f.Fn == "clamp" {
			return 3, 3
		}
		f := lookup(f.Fn)
		if f.F1 != nil || f.I1 != nil || f.T1 != nil {
			return 1, 1
		}
		return 2, 2
	}
	return 0, 0
}

func (d *decoder) expr(f fileExpr) *loop.Expr {
	e := &loop.Expr{Type: element(f.Type), Fn: f.Fn, I: f.Int}
	lo, hi := arity(f)
	if len(f.Args) < lo || len(f.Args) > hi {
		reject("%s %s has %d operands", f.Kind, f.Fn, len(f.Args))
	}
	for _, a := range f.Args {
		e.Args = append(e.Args, pick(d.exprs, a-1))
	}
	switch f.Kind {
	case "const":
		e.Kind = loop.Const
		if e.Type.IsFloat() {
			e.F = parseNumber(f.Num)
		}
	case "var":
		e.Kind, e.Var = loop.VarRef, pick(d.vars, f.Ref)
	case "reg":
		e.Kind, e.Reg = loop.RegRef, pick(d.regs, f.Ref)
		same(e.Type, e.Reg.Type)
	case "load":
		e.Kind, e.Buf = loop.Load, pick(d.bufs, f.Ref)
		same(e.Type, e.Buf.Type)
		same(e.Args[0].Type, tensor.I64)
	case "call":
		e.Kind = loop.Call
		for _, a := range e.Args[1:] {
			same(a.Type, e.Args[0].Type)
		}
		if e.Type != tensor.Bool {
			same(e.Type, e.Args[0].Type)
		} else if g := scalar.Lookup(e.Fn); g != nil && !g.Test {
			same(e.Args[0].Type, tensor.Bool)
		}
		if e.Fn == "clamp" || e.Fn == "idiv" || e.Fn == "imod" {
			same(e.Type, tensor.I64)
			if e.Args[1].Kind != loop.Const || e.Fn != "clamp" && e.Args[1].I < 1 || e.Fn == "clamp" && e.Args[2].Kind != loop.Const {
				reject("%s by what is no positive number", e.Fn)
			}
		}
	case "if":
		e.Kind = loop.Select
		same(e.Args[0].Type, tensor.Bool)
		same(e.Args[1].Type, e.Type)
		same(e.Args[2].Type, e.Type)
	case "to":
		e.Kind = loop.Cast
	case "bits":
		e.Kind = loop.Bits
	default:
		reject("an expression of kind %q", f.Kind)
	}
	return e
}

func same(a, b tensor.DType) {
	if a != b {
		reject("%s where %s is wanted", a, b)
	}
}

func parseNumber(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		reject("number %q", s)
	}
	return v
}

// typed is an expression of a wanted type.
func (d *decoder) typed(i int, t tensor.DType) *loop.Expr {
	e := pick(d.exprs, i-1)
	same(e.Type, t)
	return e
}

func (d *decoder) body(list []fileStmt) []loop.Stmt {
	var out []loop.Stmt
	for _, f := range list {
		out = append(out, d.stmt(f))
	}
	return out
}

func (d *decoder) stmt(f fileStmt) loop.Stmt {
	switch f.Kind {
	case "for":
		return &loop.For{Var: pick(d.vars, f.Var), Kind: f.Loop, Par: f.Par, Team: f.Team, Body: d.body(f.Body)}
	case "store":
		b := pick(d.bufs, f.Buf)
		if b.Space == loop.Param && !b.Out {
			reject("a store to %s, which is no output", b.Name)
		}
		return &loop.Store{Buf: b, Index: d.typed(f.At, tensor.I64), Val: d.typed(f.Val, b.Type)}
	case "set":
		r := pick(d.regs, f.Reg)
		return &loop.Set{Reg: r, Decl: f.Decl, Val: d.typed(f.Val, r.Type)}
	case "accum":
		r := pick(d.regs, f.Reg)
		return &loop.Accum{Reg: r, Fn: f.Fn, Val: d.typed(f.Val, r.Type)}
	case "cond":
		return &loop.Cond{If: d.typed(f.Val, tensor.Bool), Then: d.body(f.Body), Else: d.body(f.Else)}
	case "zero":
		return &loop.Zero{Buf: pick(d.bufs, f.Buf), From: d.typed(f.At, tensor.I64), N: size(f.N)}
	case "tile":
		if f.Tile != nil {
			return d.tile(f.Tile)
		}
	}
	reject("a statement of kind %q", f.Kind)
	return nil
}

func (d *decoder) tile(f *fileTile) *loop.Tile {
	operand := func(o *fileOperand) (*loop.Buffer, *loop.Expr) {
		if o == nil {
			return nil, nil
		}
		b := pick(d.bufs, o.Buf)
		same(b.Type, tensor.F32)
		return b, d.typed(o.At, tensor.I64)
	}
	t := &loop.Tile{
		OB: f.OB, P: f.P, L: f.L, XP: f.XP, SP: f.SP, AP: f.AP, WO: f.WO, SO: f.SO, AO: f.AO, Red: f.Red, Lanes: f.Lanes, Act: f.Act,
		Lo: float32(parseNumber(f.Lo)), Hi: float32(parseNumber(f.Hi)), Terms: f.Terms, Tail: f.Tail, More: f.More,
	}
	t.X, t.XAt = operand(&f.X)
	t.W, t.WAt = operand(&f.W)
	t.S, t.SAt = operand(&f.S)
	t.B, t.BAt = operand(f.B)
	t.Add, t.AddAt = operand(f.Add)
	return t
}
