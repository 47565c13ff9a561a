package csource

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// randomMatrix draws a tile for the matrix unit that a lowering could ask for.
func randomMatrix(r *rand.Rand) *loop.Tile {
	buf := func(name string, d tensor.DType) *loop.Buffer { return &loop.Buffer{Name: name, Type: d} }
	kind := []loop.TileKind{loop.TileBF16, loop.TileU8S8}[r.IntN(2)]
	x, w := kind.Operands()
	t := &loop.Tile{Kind: kind, OB: 1 + r.IntN(2), Rows: 1 + r.IntN(16), L: 16, Matrix: true, X: buf("x", x), W: buf("w", w), Act: []string{"", "", "", "relu", "clip"}[r.IntN(5)], Lo: -20, Hi: 30,
		XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0), BAt: loop.Int(0), AddAt: loop.Int(0)}
	g := kind.Group()
	types := []tensor.DType{tensor.F32, tensor.F32, tensor.BF16}
	t.S = buf("s", types[r.IntN(3)])
	whole := kind == loop.TileU8S8 && r.IntN(3) == 0 // sums stay whole numbers
	if whole {
		t.S, t.Act = buf("s", tensor.I32), ""
	}
	if r.IntN(2) == 0 {
		t.B = buf("b", sums(t))
	}
	if r.IntN(3) == 0 && !whole {
		t.Add = buf("a", types[r.IntN(3)])
	}
	t.P = t.Rows * (1 + r.IntN(2))
	wide := 16 * g * []int{1, t.OB}[r.IntN(2)] // rows of W of a vector, or of all in turn
	t.WO = 16 * g
	if wide == 16*g {
		t.WO = 16*16*g*4 + r.IntN(3)*64
	}
	t.Red = []loop.Red{{N: 16, XStep: g, WStep: wide}}
	xstep, wstep := 16*g*[]int{1, 20}[r.IntN(2)], 16*wide
	for range r.IntN(4) {
		n := 1 + r.IntN(3)
		t.Red = append([]loop.Red{{N: n, XStep: xstep, WStep: wstep}}, t.Red...)
		xstep, wstep = xstep*n+r.IntN(3)*g, wstep*n
	}
	at := 0
	for p := range t.P {
		if p%t.Rows == 0 {
			at = p * 80
		}
		t.XP = append(t.XP, at)
		at += []int{16 * g, 4, 32 * g}[(t.Rows+p/t.Rows)%3]
		s := p * 16
		if t.Rows%4 == 0 && p%t.Rows > 2 { // garbage between the rows of a map
			s += 48
		}
		t.SP, t.AP = append(t.SP, s), append(t.AP, p*16+s%64)
	}
	t.SO, t.AO = 16*t.P+64, 16*t.P+128
	switch r.IntN(3) {
	case 0:
		t.Terms = [][2]int{{xstep, 0}, {0, 0}, {0, wstep}}
	case 1:
		t.Terms = [][2]int{{0, 0}, {xstep, wstep}, {xstep, 0}, {0, 2 * wstep}, {2 * xstep, 0}}
	}
	t.Prefetch = []int{0, 0, 1024}[r.IntN(3)]
	return t
}

const matrixMain = `
#include <stdio.h>
static u32 seed = 1;
static i32 draw(i32 n) { seed = seed * 1664525u + 1013904223u; return (i32)(seed >> 16) % (2 * n + 1) - n; }
static void fill(void *p, char type, long n) {
  for (long i = 0; i < n; i++) switch (type) {
    case 'b': ((bf16 *)p)[i] = to_bf16_f32((float)draw(4)); break;
    case 'u': ((u8 *)p)[i] = (u8)draw(127) + 127; break;
    case 's': ((i8 *)p)[i] = (i8)draw(3); break;
    case 'i': ((i32 *)p)[i] = draw(50); break;
    case 'f': ((float *)p)[i] = (float)draw(50); break;
  }
}
static char X[1 << 21], W[1 << 21], B[4096], A[1 << 16], S[1 << 16], T[1 << 16];
`

var typeLetter = map[tensor.DType]string{tensor.BF16: "b", tensor.U8: "u", tensor.I8: "s", tensor.I32: "i", tensor.F32: "f"}

var (
	emulatedUnit = backend.Traits{Arch: "amd64", Lanes: 16, Features: []string{"amx-bf16", backend.Emulated, "amx-int8", "amx-tile"}}
	realUnit     = backend.Traits{Arch: "amd64", Lanes: 16, Features: []string{"amx-bf16", "amx-int8", "amx-tile"}}
)

// TestMatrixTiles runs random tiles for the matrix unit, emulated, beside the
// plain loops that say what they mean: the numbers are whole and small, so that
// the sums are the same to the bit, and nothing else is written.
func TestMatrixTiles(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 64))
	var code, calls strings.Builder
	code.WriteString("#include \"lathe_amx.h\"\n" + matrixMain)
	direct, tables := 0, 0
	for k := range 36 {
		tile := randomMatrix(r)
		if err := tile.Check(); err != nil {
			t.Fatal(err)
		}
		text := amxTile(tile, emulatedUnit)
		if text == "" {
			t.Fatalf("tile %d is not for the unit", k)
		}
		if !strings.Contains(text, " c[") {
			direct++
		}
		if strings.Contains(text, "const i32[]") {
			tables++
		}
		head := fmt.Sprintf("(const %s *x, const %s *w, const %s *b, %s *s, const %s *a) {\n", cType[tile.X.Type], cType[tile.W.Type], cType[sums(tile)], cType[tile.S.Type], cType[added(tile)])
		fmt.Fprintf(&code, "static __attribute__((noinline)) void unit%d%s%s}\nstatic __attribute__((noinline, optimize(1))) void plain%d%s", k, head, text, k, head)
		plainTile(&code, tile)
		code.WriteString("}\n")
		fmt.Fprintf(&calls, "  fill(X, '%s', 1 << 18); fill(W, '%s', 1 << 18); fill(B, '%s', 32); fill(A, '%s', 1 << 12); memset(S, 7, sizeof S); memset(T, 7, sizeof T);\n",
			typeLetter[tile.X.Type], typeLetter[tile.W.Type], typeLetter[sums(tile)], typeLetter[added(tile)])
		fmt.Fprintf(&calls, "  amx_config(%d); unit%d((void *)X, (void *)W, (void *)B, (void *)S, (void *)A); amx_release(); plain%d((void *)X, (void *)W, (void *)B, (void *)T, (void *)A);\n", tile.Rows, k, k)
		fmt.Fprintf(&calls, "  if (memcmp(S, T, sizeof S)) { bad = 1; printf(\"tile %d differs\\n\"); }\n", k)
	}
	if direct < 3 || tables < 3 {
		t.Errorf("%d tiles are stored directly, %d by a table", direct, tables)
	}
	fmt.Fprintf(&code, "int main(void) {\n  int bad = 0;\n%s  return bad;\n}\n", calls.String())
	levels := unitLevels()
	if len(levels) == 0 {
		t.Skip("this CPU has no AVX2")
	}
	if out := runUnit(t, code.String(), levels[0], nil); len(out) > 0 {
		t.Errorf("%s", out)
	}
}

// TestMatrixInstructions holds which instructions a tile is, in their order and
// to the byte: a product's destination, left and right operand stand where
// Intel's manual puts them (ModRM:reg, ModRM:r/m, VEX.vvvv).
func TestMatrixInstructions(t *testing.T) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("no objdump")
	}
	buf := func(name string, d tensor.DType, out bool) *loop.Buffer {
		return &loop.Buffer{Name: name, Type: d, Len: 1 << 20, Out: out}
	}
	tile := func(kind loop.TileKind, s tensor.DType, terms ...[2]int) *loop.Tile {
		x, w := kind.Operands()
		g := kind.Group()
		m := &loop.Tile{Kind: kind, OB: 2, P: 4, Rows: 2, L: 16, Matrix: true, X: buf("x", x, false), W: buf("w", w, false), S: buf("s", s, true), XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0),
			XP: []int{0, 64, 512, 640}, SP: []int{0, 16, 32, 48}, SO: 64, WO: 16 * g, Red: []loop.Red{{N: 3, XStep: 4096, WStep: 1024 * g}, {N: 16, XStep: g, WStep: 32 * g}}, Terms: terms}
		return m
	}
	// Encodings by hand: C4, then R X B inverted and map 2 (E2), then W, vvvv
	// inverted, L and the prefix (00: none, 01: 66, 10: F3, 11: F2), the opcode,
	// ModRM. Tiles 6 and 7 as vvvv are 1001 and 1000.
	bf16 := map[string]string{
		"0 4 6": "c4 e2 4a 5c c4", "1 4 7": "c4 e2 42 5c cc", "2 5 6": "c4 e2 4a 5c d5", "3 5 7": "c4 e2 42 5c dd",
	}
	bytes := map[string]string{
		"0 4 6": "c4 e2 49 5e c4", "1 4 7": "c4 e2 41 5e cc", "2 5 6": "c4 e2 49 5e d5", "3 5 7": "c4 e2 41 5e dd",
	}
	once := "load6 load7 load4 046 147 load5 256 357"
	for _, c := range []struct {
		name string
		tile *loop.Tile
		code map[string]string
		want string // of a step
		ends string
	}{
		{"bf16", tile(loop.TileBF16, tensor.F32), bf16, once, "store0 store1 store2 store3"},
		{"bf16 in two parts", tile(loop.TileBF16, tensor.BF16, [2]int{9999, 0}, [2]int{0, 0}, [2]int{0, 8888}), bf16,
			once + " load4 046 147 load5 256 357 load6 load7 046 147 256 357", "store0 store1 store2 store3"},
		{"bytes", tile(loop.TileU8S8, tensor.F32), bytes, once, "store0 store1 store2 store3"},
	} {
		k := &loop.Kernel{Family: "conv", Params: []*loop.Buffer{c.tile.S, c.tile.X, c.tile.W}, Body: []loop.Stmt{c.tile}}
		got, raw := disassembled(t, unitHeader([]*loop.Kernel{k}, realUnit)+Kernel(k, realUnit))
		want := "zero0 zero1 zero2 zero3 " + c.want + " " + c.ends + " config release"
		if got != want { // the kernel comes after its tile
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
		for operands, code := range c.code {
			if !slices.Contains(raw, code) {
				t.Errorf("%s: no %s, which multiplies tiles %s", c.name, code, operands)
			}
		}
	}
}

var (
	tileOp   = regexp.MustCompile(`^\s*[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t?(ldtilecfg|tilerelease|tilezero|tileloadd|tilestored|tdpbf16ps|tdpbusd)\b(.*)`)
	tileName = regexp.MustCompile(`%tmm(\d)`)
)

// disassembled compiles a text and gives what it does with tiles.
func disassembled(t *testing.T, text string) (ops string, raw []string) {
	t.Helper()
	dir, cc := unitDir(t, text)
	cmd := exec.Command(cc, "-O2", "-std=gnu11", "-fopenmp-simd", "-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512", "-c", "-o", "main.o", "main.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command("objdump", "-d", "--insn-width=16", "main.o")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, line := range strings.Split(string(out), "\n") {
		m := tileOp.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		raw = append(raw, strings.TrimSpace(m[1]))
		var n []string
		for _, f := range tileName.FindAllStringSubmatch(m[3], -1) {
			n = append(n, f[1])
		}
		slices.Reverse(n) // AT&T's order is the manual's backwards
		name := map[string]string{"ldtilecfg": "config", "tilerelease": "release", "tilezero": "zero", "tileloadd": "load", "tilestored": "store"}[m[2]]
		list = append(list, name+strings.Join(n, ""))
	}
	return strings.Join(list, " "), raw
}

// TestUnitIsConfigured holds where a kernel configures the unit: where it
// begins, in each loop of a team, and again behind such a loop, which gives the
// tiles back.
func TestUnitIsConfigured(t *testing.T) {
	buf := func(name string, d tensor.DType, out bool) *loop.Buffer {
		return &loop.Buffer{Name: name, Type: d, Len: 4096, Out: out}
	}
	x, w, s := buf("x", tensor.BF16, false), buf("w", tensor.BF16, false), buf("s", tensor.F32, true)
	tile := &loop.Tile{Kind: loop.TileBF16, OB: 1, P: 1, Rows: 1, L: 16, Matrix: true, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0}, SP: []int{0}, Red: []loop.Red{{N: 16, XStep: 2, WStep: 32}}}
	team := func() loop.Stmt {
		return &loop.For{Var: &loop.Var{Name: "t", N: 4}, Team: true, Body: []loop.Stmt{tile}}
	}
	plain := &loop.For{Var: &loop.Var{Name: "u", N: 4}, Team: true, Body: []loop.Stmt{&loop.Zero{Buf: s, From: loop.Int(0), N: 4}}}
	loops := &loop.For{Var: &loop.Var{Name: "i", N: 4}, Body: []loop.Stmt{&loop.Cond{If: loop.Less(loop.V(&loop.Var{Name: "i", N: 4}), loop.Int(2)), Then: []loop.Stmt{tile}}}}
	for _, c := range []struct {
		name   string
		body   []loop.Stmt
		want   string
		traits backend.Traits
	}{
		{"none", []loop.Stmt{plain}, "team", realUnit},
		{"in loops", []loop.Stmt{loops}, "config tile release", realUnit},
		{"in a team only", []loop.Stmt{team()}, "config tile release | team", realUnit},
		{"in both", []loop.Stmt{tile, team(), plain, tile}, "config tile release | config tile team config team tile release", realUnit},
		{"no unit", []loop.Stmt{tile, team()}, "tile | tile team", backend.Traits{Arch: "amd64", Lanes: 16}},
	} {
		text := Kernel(&loop.Kernel{Family: "k", Params: []*loop.Buffer{s, x, w}, Body: c.body}, c.traits)
		var got []string
		for _, line := range strings.Split(text, "\n") {
			switch {
			case strings.HasPrefix(line, "}") && len(got) > 0 && strings.Contains(text, "_p1"):
				got = append(got, "|")
			case strings.Contains(line, "amx_config("):
				got = append(got, "config")
			case strings.Contains(line, "amx_release("):
				got = append(got, "release")
			case strings.Contains(line, "  k_k_") && strings.Contains(line, "_t0("):
				got = append(got, "tile")
			case strings.Contains(line, "else lathe_region"):
				got = append(got, "team")
			}
		}
		for len(got) > 0 && got[len(got)-1] == "|" {
			got = got[:len(got)-1]
		}
		if s := strings.Join(slices.Compact(got), " "); s != c.want {
			t.Errorf("%s: %s, want %s\n%s", c.name, s, c.want, text)
		}
	}
}
