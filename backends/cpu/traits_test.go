package cpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// What CPUs have, by their makers' manuals.
func TestTargetFeatures(t *testing.T) {
	for _, c := range []struct {
		name, cpu, arch string
		lanes           int
		has, hasNot     string
		flags           string
	}{
		{"x86-64", "x86-64", "amd64", 4, "", "sse3 avx", "-march=x86-64"},
		{"v3", "x86-64-v3", "amd64", 8, "avx2 f16c fma", "avx512f avx-vnni", "-march=x86-64-v3"},
		{"haswell", "haswell", "amd64", 8, "avx2 f16c fma", "avx512f", "-march=x86-64-v3"},
		{"alderlake", "alderlake", "amd64", 8, "avx-vnni", "avx512f", "-march=x86-64-v3 -mavxvnni"},
		{"skylake-avx512", "skylake-avx512", "amd64", 16, "avx512vl", "avx512-vnni", "-march=x86-64-v4 -mprefer-vector-width=512"},
		{"cascadelake", "cascadelake", "amd64", 16, "avx512-vnni", "avx512-bf16", "-march=x86-64-v4 -mprefer-vector-width=512 -mavx512vnni"},
		{"sapphirerapids", "sapphirerapids", "amd64", 16, "amx-bf16 amx-int8 amx-tile avx512-fp16 avx512-bf16", "", ""},
		{"znver4", "znver4", "amd64", 16, "avx512-bf16 avx512-vnni", "avx512-fp16 amx-tile avx-vnni", ""},
		{"x86-64-v4+amx-bf16", "x86-64-v4+amx-bf16", "amd64", 16, "amx-bf16 amx-tile fma", "amx-int8", "-march=x86-64-v4 -mprefer-vector-width=512 -mamx-bf16 -mamx-tile"},
		{"v4+amx-int8+amx-emulated", "x86-64-v4+amx-int8+amx-emulated", "amd64", 16, "amx-int8 amx-tile amx-emulated", "amx-bf16", "-march=x86-64-v4 -mprefer-vector-width=512"},
		{"aarch64", "armv8-a", "arm64", 4, "neon", "dotprod", "-march=armv8-a"},
		{"neoverse-n1", "neoverse-n1", "arm64", 4, "dotprod fp16 lse neon", "i8mm", "-march=armv8-a+crc+dotprod+fp16+lse+rdma"},
	} {
		tr, err := Target(c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if tr.CPU != c.cpu || tr.Arch != c.arch || tr.Lanes != c.lanes || !slices.IsSorted(tr.Features) {
			t.Errorf("%s: %+v", c.name, tr)
		}
		for _, f := range strings.Fields(c.has) {
			if !tr.Has(f) {
				t.Errorf("%s has no %s", c.name, f)
			}
		}
		for _, f := range strings.Fields(c.hasNot) {
			if tr.Has(f) {
				t.Errorf("%s has %s", c.name, f)
			}
		}
		if got := strings.Join(tr.Flags, " "); c.flags != "" && got != c.flags {
			t.Errorf("%s: flags %s", c.name, got)
		}
	}
}

func TestUnknownCPU(t *testing.T) {
	for _, c := range []struct{ name, hint string }{
		{"haswel", `"haswell"`}, {"saphirerapids", `"sapphirerapids"`}, {"x86-64-v5", `"x86-64-v4"`}, {"pdp-11", "one of native, "},
		{"x86-64-v4+avx512-vnn", `"avx512-vnni"`}, {"haswell+avx512-vnni", "x86-64-v4+avx512-vnni"},
		{"haswell+amx-bf16", "x86-64-v4+amx-bf16"}, {"znver4+amx-emulated", "znver4+amx-bf16+amx-int8+amx-emulated"}, {"cortex-a72+amx-emulated", "one of crc, "}, {"cortex-a72+fma", "one of crc, "},
	} {
		_, err := Target(c.name)
		if fault.KindOf(err) != fault.Usage || !strings.Contains(fault.HintOf(err), c.hint) {
			t.Errorf("%s: %v, hint %s", c.name, err, fault.HintOf(err))
		}
	}
}

// The name of a machine says what it has: no more, and nothing is left out that
// code could be made for.
func TestDescribe(t *testing.T) {
	features := func(name string) []string {
		tr, err := Target(name)
		if err != nil {
			t.Fatal(err)
		}
		return tr.Features
	}
	for _, name := range Names()[1:] {
		tr, err := Target(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := features(describe(tr.Arch, tr.Features)); !slices.Equal(got, tr.Features) {
			t.Errorf("%s is described with %v, has %v", name, got, tr.Features)
		}
	}
	// A hypervisor that hides the tiles of a Sapphire Rapids.
	masked := without(features("sapphirerapids"), []string{"amx-tile", "amx-int8", "amx-bf16"})
	if got := describe("amd64", masked); !slices.Equal(features(got), masked) {
		t.Errorf("without tiles: %s, %v", got, features(got))
	}
	if got := describe("amd64", nil); got != "x86-64" {
		t.Errorf("a CPU with nothing is %s", got)
	}
}

// Every flag of every name is known to the compiler of its architecture.
func TestFlagsAreKnown(t *testing.T) {
	for arch, compiler := range map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"} {
		cc, err := exec.LookPath(compiler)
		if err != nil {
			t.Logf("flags for %s were not tried: %v", arch, err)
			continue
		}
		src := filepath.Join(t.TempDir(), "a.c")
		if err := os.WriteFile(src, []byte("int a;\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, name := range Names()[1:] {
			tr, err := Target(name)
			if err != nil {
				t.Fatal(err)
			}
			if tr.Arch != arch {
				continue
			}
			if out, err := exec.Command(cc, append(slices.Clone(tr.Flags), "-S", "-o", os.DevNull, src)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	}
}

// TestNativeAndMore holds that features may follow native, and that code which
// emulates a unit needs no more of a CPU than without it.
func TestNativeAndMore(t *testing.T) {
	native, err := Target("native")
	if err != nil {
		t.Fatal(err)
	}
	if native.Lanes != 16 {
		t.Skipf("%s has no AVX-512", native.CPU)
	}
	more, err := Target("native+amx-bf16+amx-int8+amx-emulated")
	if err != nil {
		t.Fatal(err)
	}
	if more.CPU != native.CPU+"+amx-bf16+amx-int8+amx-emulated" || !more.Has("amx-bf16") || !more.Has("amx-int8") || !more.Has("amx-tile") {
		t.Errorf("%+v", more)
	}
	plain := without(native.Features, []string{"amx-bf16", "amx-int8", "amx-tile"})
	if got := more.Needs(); !slices.Equal(got, plain) {
		t.Errorf("needs %v, native has %v", got, plain)
	}
	if _, err := Target("native+avx512-vnn"); fault.KindOf(err) != fault.Usage {
		t.Errorf("native+avx512-vnn: %v", err)
	}
}
