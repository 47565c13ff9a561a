package cpu

import (
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

// level is a CPU that --cpu names.
type level struct {
	name  string
	arch  string
	lanes int
	regs  int
	flags []string
}

// levels are the CPUs that code is printed for, the widest first. The flags
// name instruction sets and not a model of CPU, so that an artifact runs
// wherever its level does.
var levels = []level{
	{"x86-64-v4", "amd64", 16, 32, []string{"-march=x86-64-v4", "-mprefer-vector-width=512"}},
	{"x86-64-v3", "amd64", 8, 16, []string{"-march=x86-64-v3"}},
	{"x86-64-v2", "amd64", 4, 16, []string{"-march=x86-64-v2"}},
	{"x86-64", "amd64", 4, 16, []string{"-march=x86-64"}},
	{"armv8-a", "arm64", 4, 32, []string{"-march=armv8-a"}},
}

// Names lists what Target accepts.
func Names() []string {
	out := []string{"native"}
	for _, l := range levels {
		out = append(out, l.name)
	}
	return out
}

// Native is the widest level that this machine has.
func Native() string {
	x := cpu.X86
	switch {
	case runtime.GOARCH == "arm64":
		return "armv8-a"
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512CD && x.HasAVX2 && x.HasFMA:
		return "x86-64-v4"
	case x.HasAVX2 && x.HasFMA && x.HasBMI2:
		return "x86-64-v3"
	case x.HasSSE42 && x.HasPOPCNT:
		return "x86-64-v2"
	}
	return "x86-64"
}

// Target gives the traits of a CPU name; "" means native.
func Target(name string) (backend.Traits, error) {
	if name == "" || name == "native" {
		name = Native()
	}
	for _, l := range levels {
		if l.name == name {
			return backend.Traits{CPU: l.name, Arch: l.arch, Lanes: l.lanes, Regs: l.regs, Flags: slices.Clone(l.flags)}, nil
		}
	}
	return backend.Traits{}, fault.New(fault.Usage, "unknown CPU %q", name).Hint("one of %s", strings.Join(Names(), ", "))
}
