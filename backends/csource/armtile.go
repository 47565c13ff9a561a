package csource

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// A register tile for NEON is one asm block too: gcc 12 keeps the accumulators
// of the plain loops in memory, one multiply-add for a load and a store each.

// armRegs is the number of vector registers, of four lanes each.
const armRegs = 32

// armPointers hold the operands' places: a load reaches some kilobytes from
// its base, tiles reach further.
var armPointers = []string{"x9", "x10", "x12", "x13", "x14", "x15", "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24"}

var armCounters = []string{"w5", "w6", "w7", "w8", "w25"}

// base is a pointer register that stands off bytes behind an operand's start.
type base struct {
	reg string
	off int
}

type armWriter struct {
	b    strings.Builder
	t    *loop.Tile
	x, w []base
	lab  int
	quad bool // four steps of the reduction at once: X is loaded in vectors
}

func (a *armWriter) op(format string, args ...any) {
	fmt.Fprintf(&a.b, "    \"%s\\n\"\n", fmt.Sprintf(format, args...))
}

func (a *armWriter) acc(o, p int) int { return o*a.t.P + p }

// armTile prints the body of a tile's function; "" if the tile does not fit the
// registers.
func armTile(t *loop.Tile, traits backend.Traits) string {
	if traits.Arch != "arm64" || t.L != 4 || len(t.Terms) > 0 || t.Tail > 0 || len(t.Red) > 5 || t.Kind != loop.TileF32 || t.W.Type != tensor.F32 || t.S.Type != tensor.F32 || added(t) != tensor.F32 {
		return ""
	}
	accs := t.OB * t.P
	need := accs + t.OB + 1
	if t.P == 1 && !t.Lanes {
		need = accs + 2
	}
	if need > armRegs || accs+bounds(t) > armRegs || t.Add != nil && accs+bounds(t)+1 > armRegs {
		return ""
	}
	a := &armWriter{t: t}
	red := func(p loop.Part) []loop.Red {
		return slices.DeleteFunc(slices.Clone(p.Red), func(r loop.Red) bool { return r.N == 1 })
	}
	_, body, _ := splitRed(red(loop.Part{Red: t.Red}), accs, 4)
	if !a.bases(body) {
		return ""
	}
	a.init()
	at, reach := loop.Part{}, span(body)
	for _, p := range t.Parts() {
		outer, body, tail := splitRed(red(p), accs, 4)
		if s := span(body); len(p.Red) > 5 || s[0] > reach[0] || s[1] > reach[1] {
			return ""
		}
		a.quad = a.quads(body)
		a.move(p.X-at.X, p.W-at.W)
		a.nest(outer, body, tail)
		at = p
	}
	a.finish(accs)
	var b strings.Builder
	b.WriteString("  __asm__ volatile(\n" + a.b.String())
	b.WriteString("    :: [x] \"r\"(x), [w] \"r\"(w), [b] \"r\"(b), [s] \"r\"(s), [a] \"r\"(a)\n    : \"memory\", \"cc\", \"x11\"")
	for _, c := range armCounters {
		fmt.Fprintf(&b, ", \"%s\"", strings.Replace(c, "w", "x", 1))
	}
	for _, q := range slices.Concat(a.x, a.w) {
		fmt.Fprintf(&b, ", \"%s\"", q.reg)
	}
	for i := range armRegs {
		fmt.Fprintf(&b, ", \"v%d\"", i)
	}
	b.WriteString(");\n")
	return b.String()
}

// bounds is how many registers the bounds of a tile's results take.
func bounds(t *loop.Tile) int {
	return map[string]int{"": 0, "relu": 1, "clip": 2}[t.Act]
}

// splitRed cuts a reduction nest into outer loops, a body of straight code and
// the rest of the innermost loop, in multiples of unit steps.
func splitRed(red []loop.Red, accs, unit int) (outer, body []loop.Red, tail loop.Red) {
	straight, cut := 1, len(red)
	for cut > 0 && straight*red[cut-1].N <= 32 && straight*red[cut-1].N*accs <= unrollFMAs {
		cut--
		straight *= red[cut].N
	}
	body, outer = red[cut:], red[:cut]
	if len(body) > 0 || len(outer) == 0 {
		return outer, body, tail
	}
	in, u := outer[len(outer)-1], 8
	for u*accs > unrollFMAs && u > unit {
		u /= 2
	}
	outer = slices.Clone(outer[:len(outer)-1])
	if in.N >= u {
		outer = append(outer, loop.Red{N: in.N / u, XStep: in.XStep * u, WStep: in.WStep * u})
		body = []loop.Red{{N: u, XStep: in.XStep, WStep: in.WStep}}
	}
	return outer, body, loop.Red{N: in.N % u, XStep: in.XStep, WStep: in.WStep}
}

// span is how far straight code moves on in X and in W.
func span(body []loop.Red) (n [2]int) {
	for _, r := range body {
		n[0] += (r.N - 1) * max(r.XStep, 0)
		n[1] += (r.N - 1) * max(r.WStep, 0)
	}
	return n
}

// bases places pointers such that every load reaches its operand by a
// displacement, as far as there are registers for them.
func (a *armWriter) bases(body []loop.Red) bool {
	t := a.t
	spanX, spanW := span(body)[0], span(body)[1]
	place := func(at []int, reach int) []base {
		var out []base
		at = slices.Clone(at)
		slices.Sort(at)
		for _, v := range at {
			if len(out) == 0 || v-out[len(out)-1].off > reach {
				out = append(out, base{"", v})
			}
		}
		return out
	}
	var xs, ws []int
	for _, v := range t.XP {
		xs = append(xs, v*4)
	}
	for o := range t.OB {
		ws = append(ws, o*t.WO*4)
	}
	const near, far = 16380, 65520 // of single elements, of vectors
	reach := near
	if t.Lanes {
		reach = far
	}
	a.x, a.w = place(xs, max(reach-spanX*4, 0)), place(ws, max(far-spanW*4, 0))
	if len(a.x)+len(a.w) > len(armPointers) {
		return false
	}
	for i := range a.x {
		a.x[i].reg = armPointers[i]
	}
	for i := range a.w {
		a.w[i].reg = armPointers[len(a.x)+i]
	}
	for _, q := range a.x {
		a.op("mov %s, %%[x]", q.reg)
		a.add(q.reg, q.off)
	}
	for _, q := range a.w {
		a.op("mov %s, %%[w]", q.reg)
		a.add(q.reg, q.off)
	}
	return true
}

// quads reports whether X can be loaded four steps at a time.
func (a *armWriter) quads(body []loop.Red) bool {
	t := a.t
	if len(body) == 0 || t.Lanes || t.P == 1 {
		return false
	}
	last := body[len(body)-1]
	return last.XStep == 1 && last.N%4 == 0 && t.OB*t.P+4*t.OB+2 <= armRegs
}

// constant puts a number that is not negative into x11.
func (a *armWriter) constant(v int) {
	a.op("movz x11, #%d", v&0xffff)
	for s := 16; v>>s > 0; s += 16 {
		a.op("movk x11, #%d, lsl #%d", v>>s&0xffff, s)
	}
}

func (a *armWriter) add(reg string, v int) {
	name := "add"
	if v < 0 {
		name, v = "sub", -v
	}
	switch {
	case v == 0:
	case v < 4096:
		a.op("%s %s, %s, #%d", name, reg, reg, v)
	default:
		a.constant(v)
		a.op("%s %s, %s, x11", name, reg, reg)
	}
}

// access prints a load or store of a register of size bytes.
func (a *armWriter) access(name, reg string, size int, from string, off int) {
	switch {
	case off >= 0 && off%size == 0 && off <= 4095*size, off >= -256 && off < 256:
		a.op("%s %s, [%s, #%d]", name, reg, from, off)
	case off >= 0:
		a.constant(off)
		a.op("%s %s, [%s, x11]", name, reg, from)
	default:
		a.constant(-off)
		a.op("sub x11, %s, x11", from)
		a.op("%s %s, [x11]", name, reg)
	}
}

// load prints a load of an operand: the last base before it is the nearest.
func (a *armWriter) load(reg string, size int, bases []base, at, step int) {
	b := bases[0]
	for _, c := range bases {
		if c.off <= at {
			b = c
		}
	}
	a.access("ldr", reg, size, b.reg, at-b.off+step)
}

func (a *armWriter) init() {
	t := a.t
	for o := range t.OB {
		for p := range t.P {
			switch {
			case t.B == nil:
				a.op("movi v%d.4s, #0", a.acc(o, p))
			case p == 0:
				a.access("ldr", fmt.Sprintf("q%d", a.acc(o, 0)), 16, "%[b]", o*t.L*4)
			default:
				a.op("mov v%d.16b, v%d.16b", a.acc(o, p), a.acc(o, 0))
			}
		}
	}
}

// nest prints loops around straight code. On return the pointers are where
// they began.
func (a *armWriter) nest(outer, body []loop.Red, tail loop.Red) {
	if len(outer) == 0 {
		a.straight(body)
		if tail.N > 0 {
			a.straight([]loop.Red{tail})
		}
		return
	}
	r := outer[0]
	c := armCounters[len(outer)-1]
	a.lab++
	lab := a.lab + 10
	rest := loop.Red{}
	if len(outer) > 1 {
		rest = tail
	}
	if r.N > 1 {
		a.constant(r.N)
		a.op("mov %s, w11", c)
		a.op("%d:", lab)
	}
	a.nest(outer[1:], body, rest)
	a.move(r.XStep, r.WStep)
	if r.N > 1 {
		a.op("subs %s, %s, #1", c, c)
		a.op("b.ne %db", lab)
	}
	if len(outer) == 1 && tail.N > 0 {
		a.straight([]loop.Red{tail})
	}
	a.move(-r.N*r.XStep, -r.N*r.WStep)
}

func (a *armWriter) move(x, w int) {
	for _, q := range a.x {
		a.add(q.reg, x*4)
	}
	for _, q := range a.w {
		a.add(q.reg, w*4)
	}
}

func (a *armWriter) straight(red []loop.Red) {
	quad := a.quad && len(red) > 0 && red[len(red)-1].N%4 == 0
	n := 1
	for _, r := range red {
		n *= r.N
	}
	for i := 0; i < n; i++ {
		dx, dw, rest := 0, 0, i
		for k := len(red) - 1; k >= 0; k-- {
			dx += rest % red[k].N * red[k].XStep
			dw += rest % red[k].N * red[k].WStep
			rest /= red[k].N
		}
		if quad {
			a.four(dx*4, dw*4, red[len(red)-1].WStep*4)
			i += 3
			continue
		}
		a.step(dx*4, dw*4)
	}
}

// four is four steps: each point's four elements are one load, and the lanes
// of it multiply the weights of the steps.
func (a *armWriter) four(dx, dw, wstep int) {
	t := a.t
	accs := t.OB * t.P
	x := accs + 4*t.OB
	for k := range 4 {
		for o := range t.OB {
			a.weight(accs+k*t.OB+o, o, dw+k*wstep)
		}
	}
	room := min(armRegs-x, 4)
	for p := 0; p < t.P; p += room {
		group := min(room, t.P-p)
		for i := range group {
			a.load(fmt.Sprintf("q%d", x+i), 16, a.x, t.XP[p+i]*4, dx)
		}
		for k := range 4 {
			for i := range group {
				for o := range t.OB {
					a.op("fmla v%d.4s, v%d.4s, v%d.s[%d]", a.acc(o, p+i), accs+k*t.OB+o, x+i, k)
				}
			}
		}
	}
}

func (a *armWriter) weight(reg, o, dw int) {
	at := o * a.t.WO * 4
	a.load(fmt.Sprintf("q%d", reg), 16, a.w, at, dw)
	if off := dw + a.t.Prefetch; a.t.Prefetch > 0 && len(a.w) == 1 && (at+off)%8 == 0 && at+off <= 32760 {
		a.op("prfm pldl1keep, [%s, #%d]", a.w[0].reg, at+off)
	}
}

// step is one multiply-add of every accumulator.
func (a *armWriter) step(dx, dw int) {
	t := a.t
	accs := t.OB * t.P
	if t.P == 1 && !t.Lanes {
		a.load(fmt.Sprintf("s%d", accs), 4, a.x, t.XP[0]*4, dx)
		room := armRegs - accs - 1
		for o := range t.OB {
			a.weight(accs+1+o%room, o, dw)
			a.op("fmla v%d.4s, v%d.4s, v%d.s[0]", o, accs+1+o%room, accs)
		}
		return
	}
	for o := range t.OB {
		a.weight(accs+o, o, dw)
	}
	x := accs + t.OB
	room := min(armRegs-x, 4)
	for p := range t.P {
		r := x + p%room
		if t.Lanes {
			a.load(fmt.Sprintf("q%d", r), 16, a.x, t.XP[p]*4, dx)
			a.op("fmla v%d.4s, v%d.4s, v%d.4s", p, r, accs)
			continue
		}
		a.load(fmt.Sprintf("s%d", r), 4, a.x, t.XP[p]*4, dx)
		for o := range t.OB {
			a.op("fmla v%d.4s, v%d.4s, v%d.s[0]", a.acc(o, p), accs+o, r)
		}
	}
}

// finish adds, bounds and stores the accumulators. fmax and fmin give NaN if
// either operand is one.
func (a *armWriter) finish(accs int) {
	t := a.t
	lo, hi, sum := accs, accs+1, accs+bounds(t)
	fill := func(reg int, v float32) {
		a.constant(int(math.Float32bits(v)))
		a.op("dup v%d.4s, w11", reg)
	}
	switch t.Act {
	case "relu":
		fill(lo, 0)
	case "clip":
		fill(lo, t.Lo)
		fill(hi, t.Hi)
	}
	for o := range t.OB {
		for p := range t.P {
			v := a.acc(o, p)
			if t.Add != nil {
				a.access("ldr", fmt.Sprintf("q%d", sum), 16, "%[a]", (t.AP[p]+o*t.AO)*4)
				a.op("fadd v%d.4s, v%d.4s, v%d.4s", v, v, sum)
			}
			if t.Act != "" {
				a.op("fmax v%d.4s, v%d.4s, v%d.4s", v, v, lo)
			}
			if t.Act == "clip" {
				a.op("fmin v%d.4s, v%d.4s, v%d.4s", v, v, hi)
			}
			a.access("str", fmt.Sprintf("q%d", v), 16, "%[s]", (t.SP[p]+o*t.SO)*4)
		}
	}
}
