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

// A register tile is one asm block with fixed registers: gcc spills a tile of
// 28 accumulators written with vector types (210 moves, 125 instead of 195
// GFLOP/s on the reference machine), and compiles it ten times slower.

// x86 is one vector extension.
type x86 struct {
	reg   string // zmm or ymm
	lanes int
	regs  int
	embed bool // operands may be broadcast from memory
}

func x86Of(t backend.Traits) (x86, bool) {
	switch {
	case t.Arch != "amd64":
		return x86{}, false
	case t.Lanes == 16:
		return x86{"zmm", 16, 32, true}, true
	case t.Lanes == 8:
		return x86{"ymm", 8, 16, false}, true
	}
	return x86{}, false
}

type asmWriter struct {
	b       strings.Builder
	x       x86
	t       *loop.Tile
	xs, ws  int // bytes of an element of X and W
	forms   x86Form
	lab     int
	clobber string
}

// x86Form are the instructions of a kind of tile.
type x86Form struct {
	fma    string // accumulates; the second operand is W's
	spread string // fills a register with one group of X
	embed  string // what spreads an operand from memory
}

var x86Forms = [...]x86Form{
	loop.TileF32:  {"vfmadd231ps", "vbroadcastss", "%{1to16%}"},
	loop.TileBF16: {"vdpbf16ps", "vpbroadcastd", "%{1to16%}"},
	loop.TileU8S8: {"vpdpbusd", "vpbroadcastd", ""},
}

// x86Narrow reports whether the target has the instructions for the types of a
// tile's operands.
func x86Narrow(t *loop.Tile, traits backend.Traits) bool {
	for _, b := range []*loop.Buffer{t.S, t.Add} {
		if b != nil && b.Type == tensor.BF16 && !traits.Has("avx512-bf16") {
			return false
		}
	}
	switch t.Kind {
	case loop.TileBF16:
		return !t.Lanes && traits.Has("avx512-bf16")
	case loop.TileU8S8:
		return traits.Has(vnni(traits))
	}
	return t.W.Type == tensor.F32 || t.W.Type == tensor.F16 && !t.Lanes && traits.Has("f16c")
}

// vnni is the instruction set of products of bytes at a target's width.
func vnni(t backend.Traits) string {
	if t.Lanes == 16 {
		return "avx512-vnni"
	}
	return "avx-vnni"
}

func (a *asmWriter) op(format string, args ...any) {
	fmt.Fprintf(&a.b, "    \"%s\\n\"\n", fmt.Sprintf(format, args...))
}

func (a *asmWriter) r(i int) string { return fmt.Sprintf("%%%%%s%d", a.x.reg, i) }

func (a *asmWriter) acc(o, p int) string { return a.of(o, o*a.t.P+p) }

// x86Tile prints the body of a tile's function; "" if the tile does not fit
// the registers.
func x86Tile(t *loop.Tile, traits backend.Traits) string {
	x, ok := x86Of(traits)
	if !ok || t.L != x.lanes || len(t.Terms) > 0 || !x86Narrow(t, traits) {
		return ""
	}
	if t.Across {
		return x86Across(t, x, traits)
	}
	accs := t.OB * t.P
	weights := t.OB
	if t.P == 1 && !t.Lanes {
		weights = 0
	}
	free := x.regs - accs - weights
	if t.P == 1 && !alike(t) && free < 2 {
		return ""
	}
	if free < 0 || free == 0 && (x86Forms[t.Kind].embed == "" || !x.embed || t.P == 1) {
		return ""
	}
	if slices.ContainsFunc(t.Parts(), func(p loop.Part) bool { return len(p.Red) > 5 }) || t.Add != nil && t.Add.Type == tensor.BF16 && x.regs-accs < 3 || t.Act == "clip" && x.regs-accs < 2 || t.Act == "relu" && x.regs-accs < 1 {
		return ""
	}
	a := &asmWriter{x: x, t: t, xs: t.X.Type.Size(), ws: t.W.Type.Size(), forms: x86Forms[t.Kind]}
	a.init()
	a.op("mov %%[x], %%%%r9")
	a.op("mov %%[w], %%%%r10")
	at := loop.Part{}
	for _, p := range t.Parts() {
		a.move(p.X-at.X, p.W-at.W)
		a.loops(p.Red, accs, weights, free)
		at = p
	}
	a.finish(accs)
	var b strings.Builder
	if a.masked() {
		a.clobber = ", \"k1\""
	}
	b.WriteString("  __asm__ volatile(\n" + a.b.String())
	b.WriteString("    :: [x] \"r\"(x), [w] \"r\"(w), [b] \"r\"(b), [s] \"r\"(s), [a] \"r\"(a)\n    : \"memory\", \"cc\", \"r8\", \"r9\", \"r10\", \"r11\", \"rcx\", \"rdx\"")
	for i := range x.regs {
		fmt.Fprintf(&b, ", \"xmm%d\"", i)
	}
	b.WriteString(a.clobber + ");\n")
	return b.String()
}

func (a *asmWriter) init() {
	t := a.t
	for o := range t.OB {
		for p := range t.P {
			switch {
			case t.B == nil && a.x.embed:
				a.op("vpxord %s, %s, %s", a.acc(o, p), a.acc(o, p), a.acc(o, p))
			case t.B == nil:
				a.op("vxorps %s, %s, %s", a.acc(o, p), a.acc(o, p), a.acc(o, p))
			case p == 0:
				a.op("vmovups %d(%%[b]), %s", o*t.L*4, a.acc(o, 0))
			default:
				a.op("vmovaps %s, %s", a.acc(o, 0), a.acc(o, p))
			}
		}
	}
}

var counters = []string{"r8d", "r11d", "ecx", "edx"}

// unrollFMAs bounds the multiply-adds of straight code, about 8 bytes each.
const unrollFMAs = 512

// loops prints the reduction nest; the innermost steps are straight code with
// displacements, loops around them move the pointers.
func (a *asmWriter) loops(red []loop.Red, accs, weights, free int) {
	red = slices.DeleteFunc(slices.Clone(red), func(r loop.Red) bool { return r.N == 1 })
	straight := 1
	cut := len(red)
	for cut > 0 && straight*red[cut-1].N <= 32 && straight*red[cut-1].N*accs <= unrollFMAs {
		cut--
		straight *= red[cut].N
	}
	body := red[cut:]
	outer := red[:cut]
	var tail loop.Red
	if len(body) == 0 && len(outer) > 0 { // a long innermost loop: by eights
		in := outer[len(outer)-1]
		u := 8
		for u*accs > unrollFMAs && u > 1 {
			u /= 2
		}
		outer = slices.Clone(outer[:len(outer)-1])
		if in.N >= u {
			outer = append(outer, loop.Red{N: in.N / u, XStep: in.XStep * u, WStep: in.WStep * u})
			body = []loop.Red{{N: u, XStep: in.XStep, WStep: in.WStep}}
		}
		tail = loop.Red{N: in.N % u, XStep: in.XStep, WStep: in.WStep}
	}
	a.nest(outer, body, tail, accs, weights, free)
}

// nest prints loops around straight code; tail is the rest of the innermost
// loop. On return the pointers are where they began.
func (a *asmWriter) nest(outer, body []loop.Red, tail loop.Red, accs, weights, free int) {
	if len(outer) == 0 {
		a.straight(body, accs, weights, free)
		return
	}
	r := outer[0]
	c := counters[len(counters)-len(outer)%len(counters)-1]
	a.lab++
	lab := a.lab
	if r.N > 1 {
		a.op("mov $%d, %%%%%s", r.N, c)
		a.op("%d:", lab+10)
	}
	a.nest(outer[1:], body, tail, accs, weights, free)
	a.move(r.XStep, r.WStep)
	if r.N > 1 {
		a.op("dec %%%%%s", c)
		a.op("jnz %db", lab+10)
	}
	if len(outer) == 1 && tail.N > 0 {
		a.straight([]loop.Red{tail}, accs, weights, free)
	}
	a.move(-r.N*r.XStep, -r.N*r.WStep)
}

func (a *asmWriter) move(x, w int) {
	if x != 0 {
		a.op("add $%d, %%%%r9", x*a.xs)
	}
	if w != 0 {
		a.op("add $%d, %%%%r10", w*a.ws)
	}
}

func (a *asmWriter) straight(red []loop.Red, accs, weights, free int) {
	if len(red) == 0 {
		a.step(0, 0, accs, weights, free, 0)
		return
	}
	n := 1
	for _, r := range red {
		n *= r.N
	}
	for i := range n {
		dx, dw, rest := 0, 0, i
		for k := len(red) - 1; k >= 0; k-- {
			dx += rest % red[k].N * red[k].XStep
			dw += rest % red[k].N * red[k].WStep
			rest /= red[k].N
		}
		a.step(dx*a.xs, dw*a.ws, accs, weights, free, i)
	}
}

// step is one multiply-add of every accumulator.
func (a *asmWriter) step(dx, dw, accs, weights, free, turn int) {
	t := a.t
	if t.Prefetch > 0 {
		for o := range t.OB {
			a.op("prefetcht0 %d(%%%%r10)", dw+o*t.WO*a.ws+t.Prefetch)
		}
	}
	switch {
	case t.Lanes && t.Kind == loop.TileU8S8: // the operand without sign is a register
		w, x := a.r(accs), a.r(accs+1)
		a.op("vmovups %d(%%%%r10), %s", dw, w)
		for p := range t.P {
			a.op("vmovups %d(%%%%r9), %s", dx+t.XP[p]*a.xs, x)
			a.op("%s %s, %s, %s", a.fma(), w, x, a.acc(0, p))
		}
	case t.Lanes:
		w := a.r(accs)
		a.op("vmovups %d(%%%%r10), %s", dw, w)
		for p := range t.P {
			a.op("vfmadd231ps %d(%%%%r9), %s, %s", dx+t.XP[p]*4, w, a.acc(0, p))
		}
	case t.P == 1 && alike(t):
		x := accs + turn%min(free, 2)
		a.op("%s %d(%%%%r9), %s", a.forms.spread, dx+t.XP[0]*a.xs, a.of(0, x))
		for o := range t.OB {
			a.op("%s %d(%%%%r10), %s, %s", a.fma(), dw+o*t.WO*a.ws, a.of(o, x), a.acc(o, 0))
		}
	case t.P == 1 && !t.Lanes:
		a.op("%s %d(%%%%r9), %s", a.forms.spread, dx+t.XP[0]*a.xs, a.of(0, accs))
		for o := range t.OB {
			w := a.of(o, accs+1+o%min(free-1, 2))
			a.weights(dw+o*t.WO*a.ws, w)
			a.multiply(a.of(o, accs), w, a.acc(o, 0))
		}
	default:
		for o := range t.OB {
			a.weights(dw+o*t.WO*a.ws, a.of(o, accs+o))
		}
		for p := range t.P {
			at := dx + t.XP[p]*a.xs
			if (free == 0 || t.OB == 1 && a.x.embed) && a.forms.embed != "" {
				for o := range t.OB {
					a.op("%s %d(%%%%r9)%s, %s, %s", a.forms.fma, at, a.spread(o), a.of(o, accs+o), a.acc(o, p))
				}
				continue
			}
			x := accs + weights + p%min(free, 2)
			a.op("%s %d(%%%%r9), %s", a.forms.spread, at, a.of(0, x))
			for o := range t.OB {
				a.multiply(a.of(o, x), a.of(o, accs+o), a.acc(o, p))
			}
		}
	}
}

// alike reports that W may be an operand from memory: its elements are as they
// are multiplied, and the instruction takes them from there.
func alike(t *loop.Tile) bool {
	return t.Kind != loop.TileF32 || t.W.Type == tensor.F32
}

// weights loads a vector of W.
func (a *asmWriter) weights(at int, reg string) {
	if a.t.Kind == loop.TileF32 && a.t.W.Type == tensor.F16 {
		a.op("vcvtph2ps %d(%%%%r10), %s", at, reg)
		return
	}
	a.op("vmovups %d(%%%%r10), %s", at, reg)
}

// multiply accumulates the product of two registers. Bytes of X have no sign,
// and the instruction takes such from its second source.
func (a *asmWriter) multiply(x, w, acc string) {
	if a.t.Kind == loop.TileU8S8 {
		x, w = w, x
	}
	a.op("%s %s, %s, %s", a.fma(), x, w, acc)
}

// fma is the instruction that accumulates; AVX-VNNI shares its name with
// AVX512-VNNI.
func (a *asmWriter) fma() string {
	if a.t.Kind == loop.TileU8S8 && !a.x.embed {
		return "%{vex%} " + a.forms.fma
	}
	return a.forms.fma
}

// finish adds, bounds and stores the accumulators. vmaxps and vminps give
// their last source for NaN, which is the accumulator: NaN stays NaN.
func (a *asmWriter) finish(accs int) {
	t := a.t
	lo, hi := accs, accs+1
	if a.masked() {
		a.op("mov $%d, %%%%r9d", 1<<t.Tail-1)
		a.op("kmovw %%%%r9d, %%%%k1")
	}
	if t.Kind == loop.TileU8S8 && t.S.Type != tensor.I32 {
		for i := range accs {
			a.op("vcvtdq2ps %s, %s", a.r(i), a.r(i))
		}
	}
	switch t.Act {
	case "relu":
		a.constant(a.r(lo), 0)
	case "clip":
		a.constant(a.r(lo), t.Lo)
		a.constant(a.r(hi), t.Hi)
	}
	for o := range t.OB {
		for p := range t.P {
			v := a.acc(o, p)
			switch {
			case t.Add != nil && t.Add.Type == tensor.BF16:
				wide := a.r(accs + 2)
				a.op("vpmovzxwd %d(%%[a]), %s", (t.AP[p]+o*t.AO)*2, wide)
				a.op("vpslld $16, %s, %s", wide, wide)
				a.op("vaddps %s, %s, %s", wide, v, v)
			case t.Add != nil:
				a.op("vaddps %d(%%[a]), %s, %s%s", (t.AP[p]+o*t.AO)*4, v, v, a.mask(o))
			}
			switch t.Act {
			case "relu":
				a.op("vmaxps %s, %s, %s", v, a.of(o, lo), v)
			case "clip":
				a.op("vmaxps %s, %s, %s", v, a.of(o, lo), v)
				a.op("vminps %s, %s, %s", v, a.of(o, hi), v)
			}
			if t.S.Type == tensor.BF16 {
				half := strings.Replace(v, "zmm", "ymm", 1)
				a.op("vcvtneps2bf16 %s, %s", v, half)
				a.op("vmovups %s, %d(%%[s])", half, (t.SP[p]+o*t.SO)*2)
				continue
			}
			at := (t.SP[p] + o*t.SO) * 4
			if t.Stored(o) < t.L && !a.x.embed {
				a.storeSome(o, o*t.P+p, at)
				continue
			}
			a.op("vmovups %s, %d(%%[s])%s", v, at, a.mask(o))
		}
	}
}

// constant fills a register with one value.
func (a *asmWriter) constant(reg string, v float32) {
	a.op("mov $%d, %%%%r9d", int32(math.Float32bits(v)))
	if a.x.embed {
		a.op("vpbroadcastd %%%%r9d, %s", reg)
		return
	}
	xmm := strings.Replace(reg, "ymm", "xmm", 1)
	a.op("vmovd %%%%r9d, %s", xmm)
	a.op("vbroadcastss %s, %s", xmm, reg)
}
