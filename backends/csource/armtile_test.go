package csource

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/emulate"
)

// randomTile draws a tile that a lowering could ask for: points and outputs
// that fit the registers, nests with and without steps of one, strides from
// adjoining to far apart.
func randomTile(r *rand.Rand) *loop.Tile {
	t := &loop.Tile{L: 4, OB: 1 + r.IntN(4), Lanes: r.IntN(5) == 0, Act: []string{"", "", "relu", "clip"}[r.IntN(4)], Lo: -0.5, Hi: 0.75}
	if t.Lanes {
		t.OB = 1
	}
	t.P = 1 + r.IntN(30/t.OB)
	f32s := &loop.Buffer{Type: tensor.F32}
	t.X, t.W, t.S = f32s, f32s, f32s
	if r.IntN(2) == 0 {
		t.B = f32s
	}
	if r.IntN(3) == 0 {
		t.Add = f32s
	}
	xstep, wstep := 1, 4
	if t.Lanes {
		xstep = 4
	}
	for range 1 + r.IntN(4) {
		n := []int{1, 2, 3, 4, 5, 7, 8, 9, 16, 40, 100}[r.IntN(11)]
		if len(t.Red) > 1 {
			n = min(n, 5)
		}
		t.Red = append([]loop.Red{{N: n, XStep: xstep, WStep: wstep}}, t.Red...)
		xstep, wstep = (xstep*n+r.IntN(3))*[]int{1, 1, 17}[r.IntN(3)], wstep*n
	}
	pitch := []int{1, 4, 8, 36, 700}[r.IntN(5)]
	if t.Lanes {
		pitch = 4 * (1 + r.IntN(3))
	}
	for p := range t.P {
		t.XP = append(t.XP, p%7*pitch+p/7*pitch*11)
		t.SP = append(t.SP, p*4*t.OB)
		t.AP = append(t.AP, p*8)
	}
	t.WO, t.SO, t.AO = wstep+[]int{0, 4, 20000}[r.IntN(3)], 4, 4*t.P*2
	t.Prefetch = []int{0, 0, 512}[r.IntN(3)]
	if r.IntN(4) == 0 { // a last block with fewer steps
		red := slices.Clone(t.Red)
		red[len(red)-1].N = 1 + r.IntN(red[len(red)-1].N)
		t.More = []loop.Part{{X: r.IntN(50), W: 4 * r.IntN(9), Red: red}}
	}
	return t
}

// reach is how many elements of X and W a tile reads behind its place.
func reach(t *loop.Tile) (x, w int) {
	for _, p := range t.Parts() {
		px, pw := p.X, p.W
		for _, r := range p.Red {
			px, pw = px+(r.N-1)*r.XStep, pw+(r.N-1)*r.WStep
		}
		x, w = max(x, px), max(w, pw)
	}
	most := 0
	for _, v := range t.XP {
		most = max(most, v)
	}
	return x + most + 4, w + (t.OB-1)*t.WO + 4
}

const tileMain = `
static float X[1 << 20], W[1 << 20], B[64], A[4096], S[4096], T[4096];
static u32 seed = 1;
static float draw(void) { seed = seed * 1664525u + 1013904223u; return (float)(i32)seed * 0x1p-31f; }
typedef void (*tile)(const float *, const float *, const float *, float *, const float *);
static int check(int k, tile asm_form, tile plain, long nx, long nw, int spoil) {
  for (long i = 0; i < nx; i++) X[i] = draw();
  for (long i = 0; i < nw; i++) W[i] = draw();
  for (int i = 0; i < 64; i++) B[i] = draw();
  for (int i = 0; i < 4096; i++) A[i] = draw(), S[i] = T[i] = 7;
  if (spoil) X[nx / 2] = F32_NAN;
  asm_form(X, W, B, S, A);
  plain(X, W, B, T, A);
  for (int i = 0; i < 4096; i++)
    if ((S[i] != S[i]) != (T[i] != T[i]) || fabsf(S[i] - T[i]) > 2e-4f) { printf("tile %d: element %d is %g, want %g\n", k, i, S[i], T[i]); return 1; }
  return 0;
}
`

// TestArmTiles runs random tiles in their NEON form beside the plain loops that
// say what they mean: the sums agree up to the order of rounding, NaN stays NaN,
// and nothing else is written.
func TestArmTiles(t *testing.T) {
	emulate.Need(t)
	r := rand.New(rand.NewPCG(5, 8))
	var code, calls strings.Builder
	code.WriteString("#include \"lathe_rt.h\"\n#include <stdio.h>\n" + tileMain)
	forms, quads := 0, 0
	for k := range 180 {
		tile := randomTile(r)
		nx, nw := reach(tile)
		if nx >= 1<<20 || nw >= 1<<20 {
			continue
		}
		asm := armTile(tile, backend.Traits{Arch: "arm64"})
		if asm == "" {
			continue
		}
		forms++
		if strings.Contains(asm, ".s[3]") {
			quads++
		}
		head := "(const float *x, const float *w, const float *b, float *s, const float *a) {\n"
		fmt.Fprintf(&code, "static __attribute__((noinline)) void asm%d%s%s}\nstatic void plain%d%s", k, head, asm, k, head)
		plainTile(&code, tile)
		code.WriteString("}\n")
		fmt.Fprintf(&calls, "  bad += check(%d, asm%d, plain%d, %d, %d, %d);\n", k, k, k, nx, nw, k%2)
	}
	if forms < 100 || quads < 15 {
		t.Fatalf("only %d tiles have a NEON form, %d of them by quads", forms, quads)
	}
	fmt.Fprintf(&code, "int main(void) {\n  int bad = 0;\n%s  return bad != 0;\n}\n", calls.String())
	dir := t.TempDir()
	for name, text := range map[string]string{"lathe_rt.h": runtimeHeader, "main.c": code.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	exe := filepath.Join(dir, "main")
	emulate.Build(t, exe, "-O1", "-std=gnu11", "-w", "main.c", "-lm")
	if out, err := emulate.Run("cortex-a53", exe); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
