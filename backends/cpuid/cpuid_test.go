package cpuid

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// The kernel's list is the independent reference for what CPUID says.
func TestDetect(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("no /proc/cpuinfo of an x86 CPU")
	}
	_, line, _ := strings.Cut(string(info), "\nflags")
	line, _, _ = strings.Cut(line, "\n")
	flags := strings.Fields(line)
	kernel := map[string]string{
		"sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "lahf": "lahf_lm", "lzcnt": "abm", "bmi": "bmi1", "avx-vnni": "avx_vnni", "avx512-ifma": "avx512ifma",
		"avx512-vbmi": "avx512vbmi", "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16",
	}
	for _, f := range X86 {
		name := kernel[f.Name]
		if name == "" {
			name = strings.Replace(f.Name, "-", "_", 1)
		}
		if slices.Contains(flags, name) != slices.Contains(here(), f.Name) {
			t.Errorf("%s: the kernel says %v", f.Name, slices.Contains(flags, name))
		}
	}
	t.Log(here())
}
