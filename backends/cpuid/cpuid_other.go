//go:build !amd64

package cpuid

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// detect gives the instruction sets that this CPU has and the system lets
// programs use.
func detect() []string {
	if runtime.GOARCH != "arm64" {
		return nil
	}
	out := []string{"neon"} // every arm64 CPU that Go runs on has it
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"lse", cpu.ARM64.HasATOMICS}, {"rdm", cpu.ARM64.HasASIMDRDM}, {"crc", cpu.ARM64.HasCRC32},
		{"dotprod", cpu.ARM64.HasASIMDDP}, {"fp16", cpu.ARM64.HasASIMDHP}, {"i8mm", cpu.ARM64.HasI8MM},
	} {
		if f.has {
			out = append(out, f.name)
		}
	}
	return out
}
