package csource

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Tiles for the matrix unit are C around single instructions, which the header
// lathe_amx.h names: the tiles' numbers are fixed, so that there is nothing for
// a compiler to allocate, and the emulation runs the same text.

// amxFeature is the instruction set that multiplies a kind of tile.
var amxFeature = [...]string{loop.TileF32: "", loop.TileBF16: "amx-bf16", loop.TileU8S8: "amx-int8"}

// onUnit reports whether a tile is printed for the matrix unit.
func onUnit(t *loop.Tile, traits backend.Traits) bool {
	return t.Matrix && traits.Arch == "amd64" && traits.Has(amxFeature[t.Kind])
}

// amxTile prints the body of a tile's function for the matrix unit; "" if the
// tile is none or the target has no such unit.
func amxTile(t *loop.Tile, traits backend.Traits) string {
	if !onUnit(t, traits) {
		return ""
	}
	a := &amxWriter{t: t, runs: t.P / t.Rows}
	a.line("enum { R = %d };", t.Rows)
	if !a.direct() {
		a.line("%s c[%d][256] __attribute__((aligned(64)));", cType[sums(t)], a.runs*t.OB)
	}
	a.each(func(m, o int) {
		if t.B != nil { // a stride of 0 gives each row the same vector
			a.line("amx_load(%d, b + %d, 0);", 2*m+o, o*t.L)
			return
		}
		a.line("amx_zero(%d);", 2*m+o)
	})
	a.sum()
	a.each(a.store)
	if !a.direct() {
		a.finish()
	}
	return a.b.String()
}

type amxWriter struct {
	b    strings.Builder
	t    *loop.Tile
	in   string
	runs int
}

func (a *amxWriter) line(format string, args ...any) {
	fmt.Fprintf(&a.b, "  "+a.in+format+"\n", args...)
}

// each visits the tiles of sums: 2·run + vector.
func (a *amxWriter) each(f func(m, o int)) {
	for m := range a.runs {
		for o := range a.t.OB {
			f(m, o)
		}
	}
}

// sum prints the reduction loops; their innermost one is an instruction.
func (a *amxWriter) sum() {
	t := a.t
	outer := t.Red[:len(t.Red)-1]
	a.line("const %s *x0 = x; const %s *w0 = w;", cType[t.X.Type], cType[t.W.Type])
	n := 0
	for _, r := range outer {
		if r.N == 1 {
			continue
		}
		a.line("for (i64 r%d = 0; r%d < %d; r%d++) {", n, n, r.N, n)
		a.in += "  "
		a.line("const %s *x%d = x%d + r%d * %d; const %s *w%d = w%d + r%d * %d;", cType[t.X.Type], n+1, n, n, r.XStep, cType[t.W.Type], n+1, n, n, r.WStep)
		n++
	}
	a.step(n)
	for range n {
		a.in = a.in[2:]
		a.line("}")
	}
}

// step prints the products of one step, term by term: what a term has in common
// with the one before it is not loaded again. The second tile of X comes after
// the products with the first one, which then need not wait for it.
func (a *amxWriter) step(depth int) {
	t := a.t
	product := "amx_dpbf16"
	if t.Kind == loop.TileU8S8 {
		product = "amx_dpbusd"
	}
	pitch := t.Red[len(t.Red)-1].WStep * t.W.Type.Size()
	terms := t.Products()
	for i, d := range terms {
		if i == 0 || d[1] != terms[i-1][1] {
			for o := range t.OB {
				at := fmt.Sprintf("w%d%s", depth, offset(d[1]+o*t.WO))
				if t.Prefetch > 0 {
					a.line("for (int l = 0; l < 16; l++) __builtin_prefetch((const char *)(%s) + %d + l * %d);", at, t.Prefetch, pitch)
				}
				a.line("amx_load(%d, %s, %d);", 6+o, at, pitch)
			}
		}
		for m := range a.runs {
			if i == 0 || d[0] != terms[i-1][0] {
				a.line("amx_load(%d, x%d%s, %d);", 4+m, depth, offset(d[0]+t.XP[m*t.Rows]), t.Stride(m)*t.X.Type.Size())
			}
			for o := range t.OB {
				a.line("%s(%d, %d, %d);", product, 2*m+o, 4+m, 6+o)
			}
		}
	}
}

// direct reports whether the sums are stored where they belong as they are.
func (a *amxWriter) direct() bool {
	t := a.t
	if t.S.Type != sums(t) || t.Add != nil || t.Act != "" {
		return false
	}
	for m := range a.runs {
		if _, even := pitchOf(t.SP[m*t.Rows : (m+1)*t.Rows]); !even {
			return false
		}
	}
	return true
}

// pitchOf is how far offsets are apart, if that is the same for all.
func pitchOf(at []int) (int, bool) {
	if len(at) < 2 {
		return 0, true
	}
	for i := range at[1:] {
		if at[i+1]-at[i] != at[1]-at[0] {
			return 0, false
		}
	}
	return at[1] - at[0], true
}

func (a *amxWriter) store(m, o int) {
	if a.direct() {
		first := a.t.SP[m*a.t.Rows:]
		pitch, _ := pitchOf(first[:a.t.Rows])
		a.line("amx_store(%d, s%s, %d);", 2*m+o, offset(first[0]+o*a.t.SO), pitch*4)
		return
	}
	a.line("amx_store(%d, c[%d], 64);", 2*m+o, m*a.t.OB+o)
}

// finish prints what comes after the sums, a vector at a time. Bounds give
// their last operand for NaN, which is the sum: NaN stays NaN.
func (a *amxWriter) finish() {
	t := a.t
	for m := range a.runs {
		a.line("for (int r = 0; r < R; r++) {")
		a.in = "  "
		for o := range t.OB {
			to := "s + " + a.place(t.SP, m) + offset(o*t.SO)
			v := fmt.Sprintf("c[%d][r * 16 + l]", m*t.OB+o)
			if t.Kind == loop.TileU8S8 && t.S.Type != tensor.I32 {
				v = "(float)" + v
			}
			switch {
			case t.Add != nil && t.Add.Type == tensor.BF16:
				a.line("i32 h%d[16]; widen16_bf16(h%d, a + %s%s);", o, o, a.place(t.AP, m), offset(o*t.AO))
				v += fmt.Sprintf(" + bits_f32_u32((u32)h%d[l] << 16)", o)
			case t.Add != nil:
				v += fmt.Sprintf(" + a[%s%s + l]", a.place(t.AP, m), offset(o*t.AO))
			}
			switch t.Act {
			case "relu":
				v = "maxc_f32(" + v + ", 0.0f)"
			case "clip":
				v = fmt.Sprintf("minc_f32(maxc_f32(%s, %s), %s)", v, f32(t.Lo), f32(t.Hi))
			}
			a.vector(o, to, v, v == fmt.Sprintf("c[%d][r * 16 + l]", m*t.OB+o))
		}
		a.in = ""
		a.line("}")
	}
}

// vector prints the store of sixteen values; plain says that they are the sums.
func (a *amxWriter) vector(o int, to, v string, plain bool) {
	const lanes = "_Pragma(\"omp simd\") for (int l = 0; l < 16; l++)"
	switch {
	case a.t.S.Type == tensor.BF16 && plain:
		a.line("amx_narrow(%s, &%s);", to, strings.Replace(v, " + l]", "]", 1))
	case a.t.S.Type == tensor.BF16:
		a.line("float v%d[16] __attribute__((aligned(64)));", o)
		a.line("%s v%d[l] = %s;", lanes, o, v)
		a.line("amx_narrow(%s, v%d);", to, o)
	default:
		a.line("%s (%s)[l] = %s;", lanes, to, v)
	}
}

// place prints the offset of point r of a run; a table holds those that are not
// equally far apart.
func (a *amxWriter) place(at []int, m int) string {
	run := at[m*a.t.Rows : (m+1)*a.t.Rows]
	if pitch, even := pitchOf(run); even {
		return fmt.Sprintf("%d + r * %d", run[0], pitch)
	}
	var list []string
	for _, v := range run {
		list = append(list, fmt.Sprint(v))
	}
	return fmt.Sprintf("((const i32[]){%s})[r]", strings.Join(list, ","))
}
