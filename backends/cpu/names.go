package cpu

import "strings"

// level is a set of instruction sets that an architecture's vendors agreed on.
type level struct {
	name     string
	arch     string
	lanes    int
	regs     int
	flags    []string
	features string
}

const (
	v2Features = "cx16 lahf popcnt sse3 sse4.1 sse4.2 ssse3"
	v3Features = v2Features + " avx avx2 bmi bmi2 f16c fma lzcnt movbe"
	v4Features = v3Features + " avx512f avx512bw avx512cd avx512dq avx512vl"
)

// levels are the CPUs that code is printed for, the widest first. The flags
// name instruction sets and not a model of CPU, so that an artifact runs
// wherever its level does.
var levels = []level{
	{"x86-64-v4", "amd64", 16, 32, []string{"-march=x86-64-v4", "-mprefer-vector-width=512"}, v4Features},
	{"x86-64-v3", "amd64", 8, 16, []string{"-march=x86-64-v3"}, v3Features},
	{"x86-64-v2", "amd64", 4, 16, []string{"-march=x86-64-v2"}, v2Features},
	{"x86-64", "amd64", 4, 16, []string{"-march=x86-64"}, ""},
	{"armv8-a", "arm64", 4, 32, []string{"-march=armv8-a"}, "neon"},
}

// microarchitecture is a model of CPU: a level and what it has beyond.
type microarchitecture struct{ name, level, more string }

// What generations of x86 CPUs added to x86-64-v4. Instruction sets that no
// kernel and no loop of kernels can use are left out.
const (
	cascade  = "avx512-vnni"
	cooper   = cascade + " avx512-bf16"
	ice      = cascade + " avx512-ifma avx512-vbmi avx512-vbmi2 avx512-bitalg avx512-vpopcntdq"
	sapphire = ice + " avx512-bf16 avx512-fp16 avx-vnni amx-tile amx-int8 amx-bf16"
	arm82    = "lse rdm crc"
	armDot   = arm82 + " dotprod fp16"
)

var microarchitectures = []microarchitecture{
	{"core2", "x86-64", "sse3 ssse3 cx16 lahf"},
	{"nehalem", "x86-64-v2", ""}, {"westmere", "x86-64-v2", ""}, {"silvermont", "x86-64-v2", ""},
	{"goldmont", "x86-64-v2", ""}, {"tremont", "x86-64-v2", ""}, {"btver2", "x86-64-v2", ""},
	{"sandybridge", "x86-64-v2", ""}, {"ivybridge", "x86-64-v2", ""}, {"bdver2", "x86-64-v2", ""},
	{"haswell", "x86-64-v3", ""}, {"broadwell", "x86-64-v3", ""}, {"skylake", "x86-64-v3", ""}, {"bdver4", "x86-64-v3", ""},
	{"znver1", "x86-64-v3", ""}, {"znver2", "x86-64-v3", ""}, {"znver3", "x86-64-v3", ""},
	{"alderlake", "x86-64-v3", "avx-vnni"}, {"raptorlake", "x86-64-v3", "avx-vnni"}, {"meteorlake", "x86-64-v3", "avx-vnni"},
	{"arrowlake", "x86-64-v3", "avx-vnni"}, {"lunarlake", "x86-64-v3", "avx-vnni"}, {"gracemont", "x86-64-v3", "avx-vnni"},
	{"sierraforest", "x86-64-v3", "avx-vnni"}, {"grandridge", "x86-64-v3", "avx-vnni"},
	{"skylake-avx512", "x86-64-v4", ""}, {"cascadelake", "x86-64-v4", cascade}, {"cooperlake", "x86-64-v4", cooper},
	{"icelake-client", "x86-64-v4", ice}, {"icelake-server", "x86-64-v4", ice}, {"rocketlake", "x86-64-v4", ice}, {"tigerlake", "x86-64-v4", ice},
	{"znver4", "x86-64-v4", ice + " avx512-bf16"}, {"znver5", "x86-64-v4", ice + " avx512-bf16 avx-vnni"},
	{"sapphirerapids", "x86-64-v4", sapphire}, {"emeraldrapids", "x86-64-v4", sapphire}, {"graniterapids", "x86-64-v4", sapphire},

	{"cortex-a53", "armv8-a", "crc"}, {"cortex-a57", "armv8-a", "crc"}, {"cortex-a72", "armv8-a", "crc"}, {"cortex-a73", "armv8-a", "crc"},
	{"cortex-a55", "armv8-a", armDot}, {"cortex-a75", "armv8-a", armDot}, {"cortex-a76", "armv8-a", armDot},
	{"cortex-a77", "armv8-a", armDot}, {"cortex-a78", "armv8-a", armDot}, {"cortex-x1", "armv8-a", armDot},
	{"neoverse-n1", "armv8-a", armDot}, {"apple-m1", "armv8-a", armDot}, {"apple-m2", "armv8-a", armDot + " i8mm"},
	{"neoverse-v1", "armv8-a", armDot + " i8mm"}, {"neoverse-n2", "armv8-a", armDot + " i8mm"}, {"neoverse-v2", "armv8-a", armDot + " i8mm"},
	{"cortex-a510", "armv8-a", armDot + " i8mm"}, {"cortex-a710", "armv8-a", armDot + " i8mm"}, {"cortex-x2", "armv8-a", armDot + " i8mm"},
}

// aliases are other names of levels.
var aliases = map[string]string{"v2": "x86-64-v2", "v3": "x86-64-v3", "v4": "x86-64-v4", "aarch64": "armv8-a", "arm64": "armv8-a", "neon": "armv8-a"}

// Names lists what Target accepts: any of them may be followed by +FEATURE.
func Names() []string {
	out := []string{"native"}
	for _, l := range levels {
		out = append(out, l.name)
	}
	for _, m := range microarchitectures {
		out = append(out, m.name)
	}
	return out
}

// named is a CPU that Names lists, with all that it has.
func named(name string) (level, []string, bool) {
	if a := aliases[name]; a != "" {
		name = a
	}
	more := ""
	for _, m := range microarchitectures {
		if m.name == name {
			name, more = m.level, m.more
		}
	}
	for _, l := range levels {
		if l.name == name {
			return l, strings.Fields(l.features + " " + more), true
		}
	}
	return level{}, nil, false
}
