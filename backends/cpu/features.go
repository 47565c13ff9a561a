package cpu

// Where CPUID gives its answer.
const (
	eax = iota
	ebx
	ecx
	edx
)

// The register state that the system must save, as bits of XCR0.
const (
	noState     = 0
	avxState    = 1<<1 | 1<<2
	avx512State = avxState | 1<<5 | 1<<6 | 1<<7
	tileState   = 1<<17 | 1<<18
)

// x86Feature is an instruction set that code can be made for.
type x86Feature struct {
	name      string
	flag      string // of the C compiler, beyond a level; "" if only levels bring it
	leaf, sub uint32
	reg, bit  int
	state     uint32
}

var x86Features = []x86Feature{
	{"sse3", "", 1, 0, ecx, 0, noState},
	{"ssse3", "", 1, 0, ecx, 9, noState},
	{"cx16", "", 1, 0, ecx, 13, noState},
	{"sse4.1", "", 1, 0, ecx, 19, noState},
	{"sse4.2", "", 1, 0, ecx, 20, noState},
	{"popcnt", "", 1, 0, ecx, 23, noState},
	{"lahf", "", 0x8000_0001, 0, ecx, 0, noState},
	{"movbe", "", 1, 0, ecx, 22, noState},
	{"lzcnt", "", 0x8000_0001, 0, ecx, 5, noState},
	{"bmi", "", 7, 0, ebx, 3, noState},
	{"bmi2", "", 7, 0, ebx, 8, noState},
	{"avx", "", 1, 0, ecx, 28, avxState},
	{"f16c", "", 1, 0, ecx, 29, avxState},
	{"fma", "", 1, 0, ecx, 12, avxState},
	{"avx2", "", 7, 0, ebx, 5, avxState},
	{"avx-vnni", "-mavxvnni", 7, 1, eax, 4, avxState},
	{"avx512f", "", 7, 0, ebx, 16, avx512State},
	{"avx512dq", "", 7, 0, ebx, 17, avx512State},
	{"avx512cd", "", 7, 0, ebx, 28, avx512State},
	{"avx512bw", "", 7, 0, ebx, 30, avx512State},
	{"avx512vl", "", 7, 0, ebx, 31, avx512State},
	{"avx512-ifma", "-mavx512ifma", 7, 0, ebx, 21, avx512State},
	{"avx512-vbmi", "-mavx512vbmi", 7, 0, ecx, 1, avx512State},
	{"avx512-vbmi2", "-mavx512vbmi2", 7, 0, ecx, 6, avx512State},
	{"avx512-vnni", "-mavx512vnni", 7, 0, ecx, 11, avx512State},
	{"avx512-bitalg", "-mavx512bitalg", 7, 0, ecx, 12, avx512State},
	{"avx512-vpopcntdq", "-mavx512vpopcntdq", 7, 0, ecx, 14, avx512State},
	{"avx512-bf16", "-mavx512bf16", 7, 1, eax, 5, avx512State},
	{"avx512-fp16", "-mavx512fp16", 7, 0, edx, 23, avx512State},
	{"amx-tile", "-mamx-tile", 7, 0, edx, 24, tileState},
	{"amx-int8", "-mamx-int8", 7, 0, edx, 25, tileState},
	{"amx-bf16", "-mamx-bf16", 7, 0, edx, 22, tileState},
}

// armFeature is an instruction set beyond armv8-a; it is an extension of the
// compiler's flag -march.
type armFeature struct{ name, ext string }

var armFeatures = []armFeature{
	{"neon", ""}, {"lse", "+lse"}, {"rdm", "+rdma"}, {"crc", "+crc"},
	{"dotprod", "+dotprod"}, {"fp16", "+fp16"}, {"i8mm", "+i8mm"},
}
