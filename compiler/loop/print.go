package loop

import (
	"fmt"
	"strings"
)

// String is the text form of a kernel: equal for kernels that compute the same
// on parameters in the same order. Variables are named by whoever built it.
func (k *Kernel) String() string {
	var b strings.Builder
	b.WriteString("kernel " + k.Family + "(")
	for i, p := range k.Params {
		if i > 0 {
			b.WriteString(", ")
		}
		if p.Out {
			b.WriteString("out ")
		}
		fmt.Fprintf(&b, "%s %s[%d]", p.Name, p.Type, p.Len)
	}
	b.WriteString(") {\n")
	for _, l := range k.Locals {
		fmt.Fprintf(&b, "  local %s %s[%d]\n", l.Name, l.Type, l.Len)
	}
	printBody(&b, k.Body, "  ")
	b.WriteString("}\n")
	return b.String()
}

var kindNames = [...]string{Serial: "for", Vector: "vector", Unroll: "unroll"}

func printBody(b *strings.Builder, body []Stmt, in string) {
	for _, s := range body {
		switch s := s.(type) {
		case *For:
			par := ""
			if s.Par {
				par = "parallel "
			} else if s.Team {
				par = "team "
			}
			fmt.Fprintf(b, "%s%s%s %s < %d {\n", in, par, kindNames[s.Kind], s.Var.Name, s.Var.N)
			printBody(b, s.Body, in+"  ")
			b.WriteString(in + "}\n")
		case *Store:
			fmt.Fprintf(b, "%s%s[%s] = %s\n", in, s.Buf.Name, s.Index.Key(), s.Val.Key())
		case *Set:
			d := ""
			if s.Decl {
				d = s.Reg.Type.String() + " "
			}
			fmt.Fprintf(b, "%s%s%%%s = %s\n", in, d, s.Reg.Name, s.Val.Key())
		case *Accum:
			fmt.Fprintf(b, "%s%%%s %s= %s\n", in, s.Reg.Name, s.Fn, s.Val.Key())
		case *Cond:
			fmt.Fprintf(b, "%sif %s {\n", in, s.If.Key())
			printBody(b, s.Then, in+"  ")
			if len(s.Else) > 0 {
				b.WriteString(in + "} else {\n")
				printBody(b, s.Else, in+"  ")
			}
			b.WriteString(in + "}\n")
		case *Zero:
			fmt.Fprintf(b, "%szero %s[%s] × %d", in, s.Buf.Name, s.From.Key(), s.N)
			if s.Fill != 0 {
				fmt.Fprintf(b, " with %d", s.Fill)
			}
			b.WriteByte('\n')
		case *Tile:
			printTile(b, s, in)
		}
	}
}

var tileNames = [...]string{TileF32: "", TileBF16: "bf16 ", TileU8S8: "u8s8 "}

func printTile(b *strings.Builder, t *Tile, in string) {
	at := func(buf *Buffer, e *Expr) string {
		if buf == nil {
			return "-"
		}
		return buf.Name + "[" + e.Key() + "]"
	}
	fmt.Fprintf(b, "%s%stile %dx%dx%d %s = bias %s + sum %v of %s(+%d) * %s%v to %v(+%d)",
		in, tileNames[t.Kind], t.OB, t.P, t.L, at(t.S, t.SAt), at(t.B, t.BAt), t.Red, at(t.W, t.WAt), t.WO, at(t.X, t.XAt), t.XP, t.SP, t.SO)
	for _, p := range t.More {
		fmt.Fprintf(b, " and %v at +%d, +%d", p.Red, p.W, p.X)
	}
	if t.Lanes {
		b.WriteString(" lanes")
	}
	if t.Across {
		b.WriteString(" across")
	}
	if t.Add != nil {
		fmt.Fprintf(b, " add %s%v(+%d)", at(t.Add, t.AddAt), t.AP, t.AO)
	}
	if t.Act != "" {
		fmt.Fprintf(b, " %s(%x,%x)", t.Act, t.Lo, t.Hi)
	}
	if len(t.Terms) > 0 {
		fmt.Fprintf(b, " terms %v", t.Terms)
	}
	if t.Tail > 0 {
		fmt.Fprintf(b, " tail %d", t.Tail)
	}
	if t.Matrix {
		fmt.Fprintf(b, " matrix %d", t.Rows)
	}
	if t.Prefetch != 0 {
		fmt.Fprintf(b, " prefetch %d", t.Prefetch)
	}
	b.WriteByte('\n')
}
