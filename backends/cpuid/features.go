package cpuid

import (
	"slices"
	"sync"
)

// Registers in which the instruction CPUID gives its answer.
const (
	eax = iota
	ebx
	ecx
	edx
)

// The register state that the system must save, as bits of XCR0.
const (
	avxState    = 1<<1 | 1<<2
	avx512State = avxState | 1<<5 | 1<<6 | 1<<7
	tileState   = 1<<17 | 1<<18
)

// Feature is an instruction set that code can be made for.
type Feature struct {
	Name string
	// Flag is what tells a C compiler beyond a level of its own (on arm64 an
	// extension of -march); "" if only levels bring it.
	Flag string
	// On amd64: the leaf and sub-leaf of CPUID, the register (0 is EAX), the bit
	// in it, and what XCR0 must have.
	Leaf, Sub uint32
	Reg, Bit  int
	State     uint32
	// On arm64: Bit is a bit of Linux's auxiliary value Aux.
	Aux int
}

// X86 is the table of amd64.
var X86 = []Feature{
	{"sse3", "", 1, 0, ecx, 0, 0, 0},
	{"ssse3", "", 1, 0, ecx, 9, 0, 0},
	{"cx16", "", 1, 0, ecx, 13, 0, 0},
	{"sse4.1", "", 1, 0, ecx, 19, 0, 0},
	{"sse4.2", "", 1, 0, ecx, 20, 0, 0},
	{"popcnt", "", 1, 0, ecx, 23, 0, 0},
	{"lahf", "", 0x8000_0001, 0, ecx, 0, 0, 0},
	{"movbe", "", 1, 0, ecx, 22, 0, 0},
	{"lzcnt", "", 0x8000_0001, 0, ecx, 5, 0, 0},
	{"bmi", "", 7, 0, ebx, 3, 0, 0},
	{"bmi2", "", 7, 0, ebx, 8, 0, 0},
	{"avx", "", 1, 0, ecx, 28, avxState, 0},
	{"f16c", "", 1, 0, ecx, 29, avxState, 0},
	{"fma", "", 1, 0, ecx, 12, avxState, 0},
	{"avx2", "", 7, 0, ebx, 5, avxState, 0},
	{"avx-vnni", "-mavxvnni", 7, 1, eax, 4, avxState, 0},
	{"avx512f", "", 7, 0, ebx, 16, avx512State, 0},
	{"avx512dq", "", 7, 0, ebx, 17, avx512State, 0},
	{"avx512cd", "", 7, 0, ebx, 28, avx512State, 0},
	{"avx512bw", "", 7, 0, ebx, 30, avx512State, 0},
	{"avx512vl", "", 7, 0, ebx, 31, avx512State, 0},
	{"avx512-ifma", "-mavx512ifma", 7, 0, ebx, 21, avx512State, 0},
	{"avx512-vbmi", "-mavx512vbmi", 7, 0, ecx, 1, avx512State, 0},
	{"avx512-vbmi2", "-mavx512vbmi2", 7, 0, ecx, 6, avx512State, 0},
	{"avx512-vnni", "-mavx512vnni", 7, 0, ecx, 11, avx512State, 0},
	{"avx512-bitalg", "-mavx512bitalg", 7, 0, ecx, 12, avx512State, 0},
	{"avx512-vpopcntdq", "-mavx512vpopcntdq", 7, 0, ecx, 14, avx512State, 0},
	{"avx512-bf16", "-mavx512bf16", 7, 1, eax, 5, avx512State, 0},
	{"avx512-fp16", "-mavx512fp16", 7, 0, edx, 23, avx512State, 0},
	{"amx-tile", "-mamx-tile", 7, 0, edx, 24, tileState, 0},
	{"amx-int8", "-mamx-int8", 7, 0, edx, 25, tileState, 0},
	{"amx-bf16", "-mamx-bf16", 7, 0, edx, 22, tileState, 0},
}

// The auxiliary values that Linux tells features in.
const (
	hwcap  = 16
	hwcap2 = 26
)

// Arm is the table of arm64.
var Arm = []Feature{
	{"neon", "", 0, 0, 0, 1, 0, hwcap},
	{"crc", "+crc", 0, 0, 0, 7, 0, hwcap},
	{"lse", "+lse", 0, 0, 0, 8, 0, hwcap},
	{"fp16", "+fp16", 0, 0, 0, 10, 0, hwcap},
	{"rdm", "+rdma", 0, 0, 0, 12, 0, hwcap},
	{"dotprod", "+dotprod", 0, 0, 0, 20, 0, hwcap},
	{"i8mm", "+i8mm", 0, 0, 0, 13, 0, hwcap2},
}

// Table gives the features of an architecture.
func Table(arch string) []Feature {
	switch arch {
	case "amd64":
		return X86
	case "arm64":
		return Arm
	}
	return nil
}

// Find gives the feature of a name.
func Find(arch, name string) (Feature, bool) {
	for _, f := range Table(arch) {
		if f.Name == name {
			return f, true
		}
	}
	return Feature{}, false
}

// here are the features of this machine.
var here = sync.OnceValue(func() []string {
	out := detect()
	slices.Sort(out)
	return out
})

// Here gives the features that this machine has and its system lets programs
// use, sorted.
func Here() []string { return append([]string{}, here()...) }

// Lacks gives those of some features that this machine does not have.
func Lacks(need []string) []string {
	return slices.DeleteFunc(slices.Clone(need), func(f string) bool { return slices.Contains(here(), f) })
}

// Extensions are the names that can follow a level, by +NAME.
func Extensions(arch string) []string {
	var out []string
	for _, f := range Table(arch) {
		if f.Flag != "" {
			out = append(out, f.Name)
		}
	}
	return out
}
