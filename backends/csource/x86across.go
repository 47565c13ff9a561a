package csource

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
)

// use is one product of a tile: of a point, with the vector of weights at a
// byte offset.
type use struct{ x, w, point int }

// products lists the products of a tile by where their operand lies in X.
func products(t *loop.Tile) []use {
	steps := []use{{}}
	for _, r := range t.Red {
		var next []use
		for _, s := range steps {
			for i := range r.N {
				next = append(next, use{x: s.x + i*r.XStep, w: s.w + i*r.WStep})
			}
		}
		steps = next
	}
	var all []use
	for _, s := range steps {
		for p := range t.P {
			all = append(all, use{s.x + t.XP[p], s.w, p})
		}
	}
	slices.SortStableFunc(all, func(a, b use) int { return cmp.Compare(a.x, b.x) })
	return all
}

// acrossProducts bounds the products of a tile across pixels, which are straight
// code.
const acrossProducts = 512

// x86Across prints a tile of depthwise products of bytes. Four neighbouring
// pixels of a block of channels are one register, which is turned around so that
// the four bytes of a channel lie side by side; all products that read the same
// pixels follow.
func x86Across(t *loop.Tile, x x86, traits backend.Traits) string {
	const spare = 4 // registers: two operands, two tables
	all := products(t)
	if t.P > x.regs-spare || len(all) > acrossProducts {
		return ""
	}
	a := &asmWriter{x: x, t: t, xs: 1, ws: 1, forms: x86Forms[t.Kind]}
	quads := t.L / 4 // of a pixel
	var words, bytes []string
	bytewise := traits.Has("avx512-vbmi") && t.L == 16
	for i := range t.L {
		words = append(words, fmt.Sprint(i%4*quads+i/4))
	}
	for i := range 4 * t.L {
		if bytewise {
			bytes = append(bytes, fmt.Sprint(i%4*t.L+i/4))
		} else {
			bytes = append(bytes, fmt.Sprint(i%4*4+i%16/4))
		}
	}
	turn, inWord := a.r(x.regs-1), a.r(x.regs-2)
	a.init()
	a.op("vmovups (%%[turn]), %s", inWord)
	if !bytewise {
		a.op("vmovups (%%[words]), %s", turn)
	}
	for i := 0; i < len(all); {
		at, r := all[i].x, a.r(t.P+i%2)
		switch {
		case bytewise:
			a.op("vpermb %d(%%[x]), %s, %s", at, inWord, r)
		default:
			a.op("vpermd %d(%%[x]), %s, %s", at, turn, r)
			a.op("vpshufb %s, %s, %s", inWord, r, r)
		}
		for ; i < len(all) && all[i].x == at; i++ {
			a.op("%s %d(%%[w]), %s, %s", a.fma(), all[i].w, r, a.acc(0, all[i].point))
		}
	}
	a.finish(t.P)
	var b strings.Builder
	fmt.Fprintf(&b, "  static const u8 turn[] __attribute__((aligned(64))) = {%s};\n", strings.Join(bytes, ","))
	if !bytewise {
		fmt.Fprintf(&b, "  static const i32 words[] __attribute__((aligned(64))) = {%s};\n", strings.Join(words, ","))
	} else {
		b.WriteString("  const u8 *words = turn;\n")
	}
	b.WriteString("  __asm__ volatile(\n" + a.b.String())
	b.WriteString("    :: [x] \"r\"(x), [w] \"r\"(w), [b] \"r\"(b), [s] \"r\"(s), [a] \"r\"(a), [turn] \"r\"(turn), [words] \"r\"(words)\n    : \"memory\", \"cc\", \"r9\"")
	for i := range x.regs {
		fmt.Fprintf(&b, ", \"xmm%d\"", i)
	}
	b.WriteString(");\n")
	return b.String()
}
