package csource

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tilePrinter prints each distinct register tile of a kernel once, as a
// function of pointers.
type tilePrinter struct {
	traits backend.Traits
	b      strings.Builder
	names  map[string]string
	prefix string
}

// tileKey is what the code of a tile depends on: everything but where its
// operands lie.
func tileKey(t *loop.Tile) string {
	add := tensor.Invalid
	if t.Add != nil {
		add = t.Add.Type
	}
	return fmt.Sprint(t.Kind, t.W.Type, t.S.Type, add, t.OB, t.P, t.L, t.XP, t.WO, t.SO, t.SP, t.Red, t.More, t.Lanes, t.Across, t.Act, t.Lo, t.Hi, t.B != nil, t.Add != nil, t.AO, t.AP, t.Prefetch, t.Terms, t.Tail, t.Matrix, t.Rows)
}

func (t *tilePrinter) define(s *loop.Tile) {
	k := tileKey(s)
	if t.names[k] != "" {
		return
	}
	if err := s.Check(); err != nil {
		panic("BUG: csource: " + err.Error())
	}
	name := fmt.Sprintf("%s_t%d", t.prefix, len(t.names))
	t.names[k] = name
	fmt.Fprintf(&t.b, "static __attribute__((noinline)) void %s(const %s *x, const %s *w, const %s *b, %s *s, const %s *a) {\n", name, cType[s.X.Type], cType[s.W.Type], cType[sums(s)], cType[s.S.Type], cType[added(s)])
	switch {
	case emit(&t.b, amxTile(s, t.traits)):
	case emit(&t.b, x86Tile(s, t.traits)):
	case emit(&t.b, armTile(s, t.traits)):
	default:
		plainTile(&t.b, s)
	}
	t.b.WriteString("}\n")
}

// sums is the type of a tile's accumulators.
func sums(t *loop.Tile) tensor.DType {
	if t.Kind == loop.TileU8S8 {
		return tensor.I32
	}
	return tensor.F32
}

// added is the type of what is added behind the sums.
func added(t *loop.Tile) tensor.DType {
	if t.Add != nil {
		return t.Add.Type
	}
	return tensor.F32
}

// emit writes a form of a tile if there is one.
func emit(b *strings.Builder, code string) bool {
	b.WriteString(code)
	return code != ""
}

// call prints the call of a tile's function.
func (t *tilePrinter) call(s *loop.Tile, p *printer) string {
	at := func(b *loop.Buffer, e *loop.Expr) string {
		if b == nil {
			return "0"
		}
		return b.Name + " + " + p.expr(e)
	}
	return fmt.Sprintf("%s(%s, %s, %s, %s, %s)", t.names[tileKey(s)], at(s.X, s.XAt), at(s.W, s.WAt), at(s.B, s.BAt), at(s.S, s.SAt), at(s.Add, s.AddAt))
}

// plainTile prints a tile as loops, for targets without a form of their own.
func plainTile(b *strings.Builder, t *loop.Tile) {
	ints := func(v []int) string {
		s := make([]string, len(v))
		for i, x := range v {
			s[i] = fmt.Sprint(x)
		}
		return strings.Join(s, ",")
	}
	fmt.Fprintf(b, "  static const i32 XP[] = {%s}, SP[] = {%s};\n", ints(t.XP), ints(t.SP))
	fmt.Fprintf(b, "  %s acc[%d][%d];\n", cType[sums(t)], t.OB*t.P, t.L)
	init := literal(loop.Number(sums(t), 0, 0))
	if t.B != nil {
		init = fmt.Sprintf("b[o * %d + l]", t.L)
	}
	lanes := func(in, body string) {
		fmt.Fprintf(b, "%sfor (int o = 0; o < %d; o++) for (int p = 0; p < %d; p++) {\n%s  _Pragma(\"omp simd\")\n%s  for (int l = 0; l < %d; l++) %s\n%s}\n", in, t.OB, t.P, in, in, t.L, body, in)
	}
	lanes("  ", fmt.Sprintf("acc[o * %d + p][l] = %s;", t.P, init))
	for _, part := range t.Parts() {
		plainPart(b, t, part, lanes)
	}
	acc := fmt.Sprintf("acc[o * %d + p][l]", t.P)
	if t.S.Type == tensor.I32 {
		lanes("  ", fmt.Sprintf("s[SP[p] + o * %d + l] = %s;", t.SO, acc))
		return
	}
	v := convert(sums(t), tensor.F32, acc)
	if t.Add != nil {
		fmt.Fprintf(b, "  static const i32 AP[] = {%s};\n", ints(t.AP))
		v += " + " + convert(t.Add.Type, tensor.F32, fmt.Sprintf("a[AP[p] + o * %d + l]", t.AO))
	}
	switch t.Act {
	case "relu":
		v = "max_f32(" + v + ", 0.0f)"
	case "clip":
		v = fmt.Sprintf("min_f32(max_f32(%s, %s), %s)", v, f32(t.Lo), f32(t.Hi))
	}
	if t.Tail > 0 {
		v = fmt.Sprintf("if (o < %d || l < %d) s[SP[p] + o * %d + l] = %s;", t.OB-1, t.Tail, t.SO, v)
		lanes("  ", v)
		return
	}
	lanes("  ", fmt.Sprintf("s[SP[p] + o * %d + l] = %s;", t.SO, convert(tensor.F32, t.S.Type, v)))
}

// plainPart prints one nest of a tile's sums.
func plainPart(b *strings.Builder, t *loop.Tile, part loop.Part, lanes func(in, body string)) {
	in := "  "
	xs, ws := offset(part.X), offset(part.W)
	for i, r := range part.Red {
		fmt.Fprintf(b, "%sfor (i64 r%d = 0; r%d < %d; r%d++) {\n", in, i, i, r.N, i)
		xs += fmt.Sprintf(" + r%d * %d", i, r.XStep)
		ws += fmt.Sprintf(" + r%d * %d", i, r.WStep)
		in += "  "
	}
	lane := ""
	if t.Lanes {
		lane = fmt.Sprintf(" + l * %d", t.Kind.Group())
		if t.Kind.Group() == 1 || t.Across {
			lane = " + l"
		}
	}
	g := t.Kind.Group()
	for _, d := range t.Products() {
		var sum []string
		for i := range g {
			at, of := "l", ""
			if g > 1 {
				at, of = fmt.Sprintf("l * %d + %d", g, i), fmt.Sprintf(" + %d", i)
				if t.Across {
					of = fmt.Sprintf(" + %d", i*t.L)
				}
			}
			wi := convert(t.W.Type, sums(t), fmt.Sprintf("w[o * %d + %s%s%s]", t.WO, at, ws, offset(d[1])))
			xi := convert(t.X.Type, sums(t), fmt.Sprintf("x[XP[p]%s%s%s%s]", of, lane, xs, offset(d[0])))
			sum = append(sum, wi+" * "+xi)
		}
		lanes(in, fmt.Sprintf("acc[o * %d + p][l] += %s;", t.P, strings.Join(sum, " + ")))
	}
	for range part.Red {
		in = in[2:]
		b.WriteString(in + "}\n")
	}
}

// offset prints what is added to an index; nothing for 0.
func offset(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" + %d", n)
}

func f32(v float32) string { return literal(loop.Number(1, float64(v), 0)) }
