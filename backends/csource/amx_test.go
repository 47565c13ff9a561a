package csource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	platform "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpuid"
)

// unitDir is a folder with the runtime's headers and a program's text.
func unitDir(t *testing.T, main string) (dir, cc string) {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil || platform.GOARCH != "amd64" {
		t.Skip("no gcc for x86")
	}
	dir = t.TempDir()
	for name, text := range map[string]string{"lathe_rt.h": runtimeHeader, "lathe_amx.h": unitSource, "main.c": main} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, cc
}

// unitLevels are the levels of CPUs that this one has and the emulation can be
// compiled for, with the flags that artifacts are compiled with.
func unitLevels() [][]string {
	var out [][]string
	for _, level := range [][2]string{{"x86-64-v4", "avx512vl"}, {"x86-64-v3", "avx2"}} {
		if slices.Contains(cpuid.Here(), level[1]) {
			out = append(out, []string{"-O2", "-std=gnu11", "-w", "-fopenmp-simd", "-fno-trapping-math", "-ffp-contract=fast", "-march=" + level[0]})
		}
	}
	return out
}

// runUnit compiles and runs a program of tiles on the emulation.
func runUnit(t *testing.T, main string, flags []string, in []byte) []byte {
	t.Helper()
	dir, cc := unitDir(t, main)
	exe := filepath.Join(dir, "main")
	cmd := exec.Command(cc, append(slices.Clone(flags), "-DLATHE_AMX_EMULATED", "-o", exe, "main.c", "-lm")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command(exe)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// tileProgram reads rows, sums, left and right operands and writes the sums, in
// that order: rows·64, rows·64 and 1024 bytes.
const tileProgram = `
#include "lathe_amx.h"
#include <stdio.h>
int main(void) {
  static char c[1024], a[1024], b[1024];
  unsigned char head[2];
  while (fread(head, 1, 2, stdin) == 2) {
    int rows = head[0];
    fread(c, 64, rows, stdin); fread(a, 64, rows, stdin); fread(b, 64, 16, stdin);
    amx_config(rows);
    amx_load(1, c, 64); amx_load(5, a, 64); amx_load(6, b, 64);
    if (head[1]) amx_dpbusd(1, 5, 6); else amx_dpbf16(1, 5, 6);
    amx_store(1, c, 64);
    amx_release();
    fwrite(c, 64, rows, stdout);
  }
  return 0;
}
`

// flushed is a number with denormals as zero.
func flushed(x float32) float32 {
	if math.Abs(float64(x)) < 0x1p-126 {
		return float32(math.Copysign(0, float64(x)))
	}
	return x
}

// fused is a·b + c rounded once, with denormals as zero in operands and result:
// what is tiny is decided after rounding to 24 bits.
func fused(a, b, c float32) float32 {
	a, b, c = flushed(a), flushed(b), flushed(c)
	p := float64(a) * float64(b) // exact: 16 bits times 16 bits at most
	if s := p + float64(c); math.IsNaN(s) || math.IsInf(p, 0) || math.IsInf(float64(c), 0) || p == 0 && c == 0 {
		return float32(s)
	}
	sum := new(big.Float).SetPrec(1000).SetFloat64(p)
	sum.Add(sum, new(big.Float).SetPrec(1000).SetFloat64(float64(c)))
	if sum.Sign() == 0 {
		return 0
	}
	short := new(big.Float).SetPrec(24).SetMode(big.ToNearestEven).Set(sum)
	r, _ := short.Float32()
	if short.MantExp(nil) <= -126 { // below 2^-126
		return float32(math.Copysign(0, float64(r)))
	}
	return r
}

func bf16At(b []byte, i int) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
}

// dpbf16 is the operation section of TDPBF16PS in Intel's manual, volume 2,
// word for word.
func dpbf16(rows int, c, a, b []byte) []byte {
	out := make([]byte, rows*64)
	for m := range rows {
		var temp [32]float32
		for k := range 16 {
			for n := range 16 {
				temp[2*n] = fused(bf16At(a[m*64:], 2*k), bf16At(b[k*64:], 2*n), temp[2*n])
				temp[2*n+1] = fused(bf16At(a[m*64:], 2*k+1), bf16At(b[k*64:], 2*n+1), temp[2*n+1])
			}
		}
		for n := range 16 {
			at := m*64 + n*4
			tmp := fused(temp[2*n], 1, temp[2*n+1])
			sum := fused(math.Float32frombits(binary.LittleEndian.Uint32(c[at:])), 1, tmp)
			binary.LittleEndian.PutUint32(out[at:], math.Float32bits(sum))
		}
	}
	return out
}

// dpbusd is that of TDPBUSD.
func dpbusd(rows int, c, a, b []byte) []byte {
	out := make([]byte, rows*64)
	for m := range rows {
		for n := range 16 {
			at := m*64 + n*4
			sum := int32(binary.LittleEndian.Uint32(c[at:]))
			for k := range 64 {
				sum += int32(a[m*64+k]) * int32(int8(b[k/4*64+n*4+k%4]))
			}
			binary.LittleEndian.PutUint32(out[at:], uint32(sum))
		}
	}
	return out
}

// hostile draws bfloat16 values about a scale: of several sizes, zeros of both
// signs, denormals, and now and then what is not finite.
func hostile(r *rand.Rand, b []byte, scale int, wild bool) {
	for i := range len(b) / 2 {
		v := uint16(r.Uint32())&0x807f | uint16(max(min(127+scale+r.IntN(24)-12, 254), 1))<<7
		switch r.IntN(12) {
		case 0:
			v &= 0x8000
		case 1:
			v &= 0x807f // denormal
		case 2:
			if wild && r.IntN(20) == 0 {
				v = []uint16{0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0xff7f}[r.IntN(5)]
			}
		}
		binary.LittleEndian.PutUint16(b[2*i:], v)
	}
}

// TestUnitArithmetic holds the emulated products against the manual's text, bit
// for bit: sums that cancel, overflow, fall among the denormals on one side of
// the last rounding or the other, and start from any number.
func TestUnitArithmetic(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 26))
	var in, want []byte
	for i := range 60 {
		rows, bytewise := 1+r.IntN(16), i%4 == 3
		c, a, b := make([]byte, rows*64), make([]byte, rows*64), make([]byte, 1024)
		if bytewise {
			for _, s := range [][]byte{c, a, b} {
				for j := range s {
					s[j] = byte(r.Uint32())
				}
			}
			want = append(want, dpbusd(rows, c, a, b)...)
			in = append(in, byte(rows), 1)
		} else {
			scales := [][2]int{{0, 0}, {-70, -72}, {-66, -66}, {60, 64}, {-70, 0}, {-120, 3}}[i%6]
			hostile(r, a, scales[0], i%5 == 0)
			hostile(r, b, scales[1], i%5 == 0)
			for j := range rows * 16 {
				v := uint32(r.Uint32())&0x807f_ffff | uint32(max(min(127+scales[0]+scales[1]+r.IntN(30)-15, 254), 0))<<23
				if i%2 == 0 {
					v &= 0x8000_0000
				}
				binary.LittleEndian.PutUint32(c[4*j:], v)
			}
			want = append(want, dpbf16(rows, c, a, b)...)
			in = append(in, byte(rows), 0)
		}
		in = slices.Concat(in, c, a, b)
	}
	levels := unitLevels()
	if len(levels) == 0 {
		t.Skip("this CPU has no AVX2")
	}
	for _, flags := range levels {
		got := runUnit(t, tileProgram, flags, in)
		if len(got) != len(want) {
			t.Fatalf("%d bytes, want %d", len(got), len(want))
		}
		zero, special := 0, 0
		for i := 0; i < len(got); i += 4 {
			g, w := binary.LittleEndian.Uint32(got[i:]), binary.LittleEndian.Uint32(want[i:])
			x, y := math.Float32frombits(g), math.Float32frombits(w)
			if g != w && (x == x || y == y) {
				t.Fatalf("%s: element %d is %x (%v), want %x (%v)", flags[len(flags)-1], i/4, g, x, w, y)
			}
			if w&0x7fff_ffff == 0 {
				zero++
			}
			if w&0x7f80_0000 == 0x7f80_0000 {
				special++
			}
		}
		if zero < 20 || special < 20 {
			t.Errorf("%d zeros and %d infinities or NaN among %d", zero, special, len(got)/4)
		}
	}
}

// TestUnitByHand are products worked out by hand.
func TestUnitByHand(t *testing.T) {
	type byHand struct {
		name    string
		c       float32
		x, y    [2]float32 // two pairs: elements 0 and 1 of k = 0, then of k = 1
		x2, y2  [2]float32
		want    float32
		wantNaN bool
	}
	cases := []byHand{
		{"a product", 100, [2]float32{2, 3}, [2]float32{5, 7}, [2]float32{1, 1}, [2]float32{10, 20}, 161, false},
		// Even elements: 2^24·1, then + 1·1 is lost. Odd: −2^24 + 0. In the order
		// of the elements 2^24 − 2^24 + 1 would be 1.
		{"even and odd apart", 0, [2]float32{0x1p24, -0x1p24}, [2]float32{1, 1}, [2]float32{1, 0}, [2]float32{1, 0}, 0, false},
		// (1+2^-7)² = 1 + 2^-6 + 2^-14, minus 1 + 2^-6: what a rounded product keeps too.
		{"exact products", 0, [2]float32{1 + 0x1p-7, 0}, [2]float32{1 + 0x1p-7, 0}, [2]float32{-1 - 0x1p-6, 0}, [2]float32{1, 0}, 0x1p-14, false},
		// 1·1 + 2^-24 is a tie, to even: 1; 1 + 2^-23 + 2^-24 is one too: 1 + 2^-22.
		{"a tie to even, down", 0, [2]float32{1, 0}, [2]float32{1, 0}, [2]float32{0x1p-12, 0}, [2]float32{0x1p-12, 0}, 1, false},
		{"a tie to even, up", 1 + 0x1p-23, [2]float32{0x1p-12, 0}, [2]float32{0x1p-12, 0}, [2]float32{}, [2]float32{}, 1 + 0x1p-22, false},
		{"a denormal operand", 3, [2]float32{0x1p-127, 0}, [2]float32{0x1p127, 0}, [2]float32{}, [2]float32{}, 3, false},
		{"a denormal sum to begin with", 0x1p-130, [2]float32{0x1p-126, 0}, [2]float32{1, 0}, [2]float32{}, [2]float32{}, 0x1p-126, false},
		{"a denormal result", 0, [2]float32{0x1p-64, 0}, [2]float32{0x1p-63, 0}, [2]float32{}, [2]float32{}, 0, false},
		{"the difference of two, denormal", 0, [2]float32{0x1.8p-126, -0x1p-126}, [2]float32{1, 1}, [2]float32{}, [2]float32{}, 0, false},
		// 2^-126 − 2^-150 has 24 bits and is below 2^-126; 2^-126 − 2^-151 is rounded to 2^-126.
		{"tiny after rounding", 0, [2]float32{0x1p-63, 0}, [2]float32{0x1p-63, 0}, [2]float32{0x1p-75, 0}, [2]float32{-0x1p-75, 0}, 0, false},
		{"rounded up to what is not tiny", 0, [2]float32{0x1p-63, 0}, [2]float32{0x1p-63, 0}, [2]float32{0x1p-76, 0}, [2]float32{-0x1p-75, 0}, 0x1p-126, false},
		{"overflow", 0, [2]float32{0x1p127, 0}, [2]float32{2, 0}, [2]float32{}, [2]float32{}, float32(math.Inf(1)), false},
		{"infinity less infinity", 0, [2]float32{float32(math.Inf(1)), float32(math.Inf(-1))}, [2]float32{1, 1}, [2]float32{}, [2]float32{}, 0, true},
	}
	var in []byte
	for _, c := range cases {
		tc, a, b := make([]byte, 64), make([]byte, 64), make([]byte, 1024)
		put := func(to []byte, i int, v float32) {
			binary.LittleEndian.PutUint16(to[2*i:], uint16(math.Float32bits(v)>>16))
			if back := bf16At(to, i); back != v {
				t.Fatalf("%s: %v is no bfloat16", c.name, v)
			}
		}
		binary.LittleEndian.PutUint32(tc, math.Float32bits(c.c))
		for i := range 2 {
			put(a, i, c.x[i])
			put(a, 2+i, c.x2[i])
			put(b, i, c.y[i])
			put(b[64:], i, c.y2[i])
		}
		in = slices.Concat(in, []byte{1, 0}, tc, a, b)
	}
	for _, flags := range unitLevels() {
		out := runUnit(t, tileProgram, flags, in)
		for i, c := range cases {
			got := math.Float32frombits(binary.LittleEndian.Uint32(out[64*i:]))
			if got != c.want && !c.wantNaN || c.wantNaN && got == got {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
}

// TestUnitTraps holds that a tile which nobody configured is an error in the
// emulation too.
func TestUnitTraps(t *testing.T) {
	for _, use := range []string{"amx_zero(0);", "amx_load(4, x, 64);", "amx_store(0, x, 64);", "amx_dpbf16(0, 4, 6);", "amx_config(16); amx_release(); amx_dpbusd(0, 4, 6);"} {
		dir, cc := unitDir(t, fmt.Sprintf("#include \"lathe_amx.h\"\nstatic char x[1024];\nint main(void) { %s return 0; }\n", use))
		cmd := exec.Command(cc, "-O1", "-std=gnu11", "-w", "-DLATHE_AMX_EMULATED", "-o", "main", "main.c", "-lm")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := exec.Command(filepath.Join(dir, "main")).Run(); err == nil || !strings.Contains(err.Error(), "signal") {
			t.Errorf("%s ends with %v", use, err)
		}
	}
}
