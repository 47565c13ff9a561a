package portable

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// programFormat is the version of program files.
const programFormat = 1

// The file's form. Buffers, kernels, variables, registers and expressions are
// numbered by position; floats are written in hexadecimal, so that they come
// back exactly.
type fileProgram struct {
	Format    int          `json:"format"`
	Name      string       `json:"name"`
	Workspace int          `json:"workspace"`
	Weights   int          `json:"weights"`
	Buffers   []fileBuf    `json:"buffers"`
	Inputs    []filePort   `json:"inputs"`
	Outputs   []filePort   `json:"outputs"`
	Consts    []int        `json:"constants"`
	Kernels   []fileKernel `json:"kernels"`
	Steps     []fileStep   `json:"steps"`
}

type fileBuf struct {
	Name   string        `json:"name"`
	Where  program.Where `json:"where"`
	Type   string        `json:"type"`
	Len    int           `json:"len"`
	Offset int           `json:"offset,omitempty"`
	Index  int           `json:"index,omitempty"`
}

type filePort struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Shape  []int  `json:"shape"`
	Buffer int    `json:"buffer"`
}

type fileStep struct {
	Kernel int    `json:"kernel"`
	Args   []int  `json:"args"`
	Label  string `json:"label,omitempty"`
	Origin string `json:"origin,omitempty"`
}

type fileKernel struct {
	Family string      `json:"family"`
	Params []fileParam `json:"params"`
	Locals []fileParam `json:"locals,omitempty"`
	Vars   []fileVar   `json:"vars,omitempty"`
	Regs   []fileReg   `json:"regs,omitempty"`
	Exprs  []fileExpr  `json:"exprs,omitempty"`
	Body   []fileStmt  `json:"body"`
	Flops  int64       `json:"flops,omitempty"`
	Bytes  int64       `json:"bytes,omitempty"`
	Label  string      `json:"label,omitempty"`
}

type fileParam struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Len  int    `json:"len"`
	Out  bool   `json:"out,omitempty"`
}

type fileVar struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

type fileReg struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// fileExpr has the field that its kind needs; Args are earlier expressions.
type fileExpr struct {
	Kind string `json:"k"`
	Type string `json:"t"`
	Fn   string `json:"f,omitempty"`
	Args []int  `json:"a,omitempty"`
	Int  int64  `json:"i,omitempty"`
	Num  string `json:"x,omitempty"`
	Ref  int    `json:"r,omitempty"` // of a variable, register or buffer
}

// fileStmt has the fields that its kind needs. Expressions are numbered from 1;
// 0 is none. Buffers are the parameters, then the locals.
type fileStmt struct {
	Kind string        `json:"k"`
	Var  int           `json:"var,omitempty"`
	Loop loop.LoopKind `json:"loop,omitempty"`
	Par  bool          `json:"par,omitempty"`
	Team bool          `json:"team,omitempty"`
	Reg  int           `json:"reg,omitempty"`
	Decl bool          `json:"decl,omitempty"`
	Fn   string        `json:"fn,omitempty"`
	Buf  int           `json:"buf,omitempty"`
	At   int           `json:"at,omitempty"`
	Val  int           `json:"val,omitempty"`
	N    int           `json:"n,omitempty"`
	Body []fileStmt    `json:"body,omitempty"`
	Else []fileStmt    `json:"else,omitempty"`
	Tile *fileTile     `json:"tile,omitempty"`
}

type fileOperand struct {
	Buf int `json:"buf"`
	At  int `json:"at"`
}

type fileTile struct {
	OB    int          `json:"ob"`
	P     int          `json:"p"`
	L     int          `json:"l"`
	X     fileOperand  `json:"x"`
	W     fileOperand  `json:"w"`
	S     fileOperand  `json:"s"`
	B     *fileOperand `json:"b,omitempty"`
	Add   *fileOperand `json:"add,omitempty"`
	XP    []int        `json:"xp"`
	SP    []int        `json:"sp"`
	AP    []int        `json:"ap,omitempty"`
	WO    int          `json:"wo"`
	SO    int          `json:"so"`
	AO    int          `json:"ao,omitempty"`
	Red   []loop.Red   `json:"red"`
	Lanes bool         `json:"lanes,omitempty"`
	Act   string       `json:"act,omitempty"`
	Lo    string       `json:"lo,omitempty"`
	Hi    string       `json:"hi,omitempty"`
	Terms [][2]int     `json:"terms,omitempty"`
	Tail  int          `json:"tail,omitempty"`
	More  []loop.Part  `json:"more,omitempty"`
}

var kindNames = [...]string{
	loop.Const: "const", loop.VarRef: "var", loop.RegRef: "reg", loop.Load: "load",
	loop.Call: "call", loop.Select: "if", loop.Cast: "to", loop.Bits: "bits",
}

// Encode writes a program without its weights.
func Encode(p *program.Program) ([]byte, error) {
	out := fileProgram{Format: programFormat, Name: p.Name, Workspace: p.Workspace, Weights: p.Weights, Consts: []int{}, Kernels: []fileKernel{}, Steps: []fileStep{}}
	at := map[*program.Buf]int{}
	buf := func(b *program.Buf) int {
		i, ok := at[b]
		if !ok {
			i = len(out.Buffers)
			at[b] = i
			out.Buffers = append(out.Buffers, fileBuf{b.Name, b.Where, b.Type.String(), b.Len, b.Offset, b.Index})
		}
		return i
	}
	port := func(q program.Port) filePort {
		return filePort{q.Name, q.Type.String(), append([]int{}, q.Shape...), buf(q.Buf)}
	}
	for _, q := range p.Inputs {
		out.Inputs = append(out.Inputs, port(q))
	}
	for _, q := range p.Outputs {
		out.Outputs = append(out.Outputs, port(q))
	}
	for _, c := range p.Consts {
		out.Consts = append(out.Consts, buf(c.Buf))
	}
	kernel := map[*loop.Kernel]int{}
	for i, k := range p.Kernels {
		f, err := encodeKernel(k)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.Family, err)
		}
		out.Kernels = append(out.Kernels, f)
		kernel[k] = i
	}
	for _, s := range p.Steps {
		f := fileStep{Kernel: kernel[s.Kernel], Args: []int{}, Label: s.Label, Origin: s.Origin}
		for _, a := range s.Args {
			f.Args = append(f.Args, buf(a))
		}
		out.Steps = append(out.Steps, f)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

type encoder struct {
	f     fileKernel
	vars  map[*loop.Var]int
	regs  map[*loop.Reg]int
	bufs  map[*loop.Buffer]int
	exprs map[string]int
}

func encodeKernel(k *loop.Kernel) (f fileKernel, err error) {
	e := &encoder{vars: map[*loop.Var]int{}, regs: map[*loop.Reg]int{}, bufs: map[*loop.Buffer]int{}, exprs: map[string]int{}}
	e.f = fileKernel{Family: k.Family, Params: []fileParam{}, Flops: k.Flops, Bytes: k.Bytes, Label: k.Label}
	for _, b := range k.Params {
		e.bufs[b] = len(e.bufs)
		e.f.Params = append(e.f.Params, fileParam{b.Name, b.Type.String(), b.Len, b.Out})
	}
	for _, b := range k.Locals {
		e.bufs[b] = len(e.bufs)
		e.f.Locals = append(e.f.Locals, fileParam{b.Name, b.Type.String(), b.Len, b.Out})
	}
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(malformed)
			if !ok {
				panic(r)
			}
			err = m.error
		}
	}()
	e.f.Body = e.body(k.Body)
	return e.f, nil
}

func (e *encoder) buf(b *loop.Buffer) int {
	i, ok := e.bufs[b]
	if !ok {
		reject("it has no buffer %s", b.Name)
	}
	return i
}

func (e *encoder) variable(v *loop.Var) int {
	i, ok := e.vars[v]
	if !ok {
		i = len(e.vars)
		e.vars[v] = i
		e.f.Vars = append(e.f.Vars, fileVar{v.Name, v.N})
	}
	return i
}

func (e *encoder) reg(r *loop.Reg) int {
	i, ok := e.regs[r]
	if !ok {
		i = len(e.regs)
		e.regs[r] = i
		e.f.Regs = append(e.f.Regs, fileReg{r.Name, r.Type.String()})
	}
	return i
}

// expr numbers an expression, equal ones once.
func (e *encoder) expr(x *loop.Expr) int {
	key := x.Type.String() + " " + x.Key()
	if i, ok := e.exprs[key]; ok {
		return i
	}
	f := fileExpr{Kind: kindNames[x.Kind], Type: x.Type.String(), Fn: x.Fn, Int: x.I}
	switch x.Kind {
	case loop.Const:
		if x.Type.IsFloat() {
			f.Num = number(x.F)
		}
	case loop.VarRef:
		f.Ref = e.variable(x.Var)
	case loop.RegRef:
		f.Ref = e.reg(x.Reg)
	case loop.Load:
		f.Ref = e.buf(x.Buf)
	}
	for _, a := range x.Args {
		f.Args = append(f.Args, e.expr(a))
	}
	e.f.Exprs = append(e.f.Exprs, f)
	e.exprs[key] = len(e.f.Exprs)
	return len(e.f.Exprs)
}

// number writes a float exactly.
func number(v float64) string { return strconv.FormatFloat(v, 'x', -1, 64) }

func (e *encoder) body(list []loop.Stmt) []fileStmt {
	out := []fileStmt{}
	for _, s := range list {
		out = append(out, e.stmt(s))
	}
	return out
}

func (e *encoder) stmt(s loop.Stmt) fileStmt {
	switch s := s.(type) {
	case *loop.For:
		return fileStmt{Kind: "for", Var: e.variable(s.Var), Loop: s.Kind, Par: s.Par, Team: s.Team, Body: e.body(s.Body)}
	case *loop.Store:
		return fileStmt{Kind: "store", Buf: e.buf(s.Buf), At: e.expr(s.Index), Val: e.expr(s.Val)}
	case *loop.Set:
		return fileStmt{Kind: "set", Reg: e.reg(s.Reg), Decl: s.Decl, Val: e.expr(s.Val)}
	case *loop.Accum:
		return fileStmt{Kind: "accum", Reg: e.reg(s.Reg), Fn: s.Fn, Val: e.expr(s.Val)}
	case *loop.Cond:
		return fileStmt{Kind: "cond", Val: e.expr(s.If), Body: e.body(s.Then), Else: e.body(s.Else)}
	case *loop.Zero:
		if s.Fill != 0 {
			reject("memory that is filled with %d", s.Fill)
		}
		return fileStmt{Kind: "zero", Buf: e.buf(s.Buf), At: e.expr(s.From), N: s.N}
	case *loop.Tile:
		if s.Kind != loop.TileF32 || s.W.Type != tensor.F32 || s.S.Type != tensor.F32 || s.Add != nil && s.Add.Type != tensor.F32 {
			reject("a tile of narrow operands")
		}
		return fileStmt{Kind: "tile", Tile: e.tile(s)}
	}
	reject("a statement of type %T is not known", s)
	return fileStmt{}
}

func (e *encoder) tile(t *loop.Tile) *fileTile {
	operand := func(b *loop.Buffer, at *loop.Expr) fileOperand { return fileOperand{e.buf(b), e.expr(at)} }
	maybe := func(b *loop.Buffer, at *loop.Expr) *fileOperand {
		if b == nil {
			return nil
		}
		o := operand(b, at)
		return &o
	}
	return &fileTile{
		OB: t.OB, P: t.P, L: t.L, X: operand(t.X, t.XAt), W: operand(t.W, t.WAt), S: operand(t.S, t.SAt), B: maybe(t.B, t.BAt), Add: maybe(t.Add, t.AddAt),
		XP: t.XP, SP: t.SP, AP: t.AP, WO: t.WO, SO: t.SO, AO: t.AO, Red: t.Red, Lanes: t.Lanes, Act: t.Act,
		Lo: number(float64(t.Lo)), Hi: number(float64(t.Hi)), Terms: t.Terms, Tail: t.Tail, More: t.More,
	}
}
