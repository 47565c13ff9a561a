package cpu

import (
	"runtime"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/nearest"
)

// Native is the name of this machine: the known CPU that has most of what this
// one has and nothing else, and what this one has beyond.
func Native() string { return describe(runtime.GOARCH, cpuid.Here()) }

func describe(arch string, have []string) string {
	best, most := "", -1
	var rest []string
	for _, name := range Names() {
		l, features, ok := named(name)
		if !ok || l.arch != arch || len(features) <= most || len(without(features, have)) > 0 {
			continue
		}
		best, most, rest = name, len(features), without(have, features)
	}
	for _, f := range rest {
		if slices.Contains(cpuid.Extensions(arch), f) {
			best += "+" + f
		}
	}
	return best
}

// without gives what is in a and not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(f string) bool { return slices.Contains(b, f) })
}

// Target gives the traits of a CPU name; "" means native, which may be followed
// by +FEATURE as any other.
func Target(name string) (backend.Traits, error) {
	if first, more, _ := strings.Cut(name, "+"); first == "" || first == "native" {
		name = strings.Join(slices.DeleteFunc([]string{Native(), more}, func(s string) bool { return s == "" }), "+")
	}
	parts := strings.Split(name, "+")
	l, features, ok := named(parts[0])
	if !ok {
		return backend.Traits{}, unknown("CPU", parts[0], Names())
	}
	t := backend.Traits{CPU: name, Arch: l.arch, Lanes: l.lanes, Regs: l.regs, Flags: slices.Clone(l.flags)}
	if a := aliases[parts[0]]; a != "" {
		t.CPU = strings.Join(append([]string{a}, parts[1:]...), "+")
	}
	for _, f := range parts[1:] {
		if known := extensions(l.arch); !slices.Contains(known, f) {
			return backend.Traits{}, unknown("CPU feature", f, known)
		}
		if (strings.HasPrefix(f, "avx512") || strings.HasPrefix(f, "amx")) && l.lanes < 16 {
			return backend.Traits{}, fault.New(fault.Usage, "the CPU feature %s does not exist on %s", f, parts[0]).Hint("use x86-64-v4+%s", f)
		}
		if strings.HasPrefix(f, "amx") {
			features = append(features, "amx-tile")
		}
		features = append(features, f)
	}
	slices.Sort(features)
	t.Features = slices.Compact(features)
	if t.Has(backend.Emulated) && !t.Has("amx-bf16") && !t.Has("amx-int8") {
		return backend.Traits{}, fault.New(fault.Usage, "%s has no matrix unit to emulate", parts[0]).Hint("use %s+amx-bf16+amx-int8+%s", parts[0], backend.Emulated)
	}
	for _, f := range without(t.Needs(), strings.Fields(l.features)) {
		switch x, _ := cpuid.Find(l.arch, f); {
		case l.arch == "arm64":
			t.Flags[0] += x.Flag
		case x.Flag != "":
			t.Flags = append(t.Flags, x.Flag)
		}
	}
	return t, nil
}

// extensions are the features that may follow a name.
func extensions(arch string) []string {
	out := cpuid.Extensions(arch)
	if arch == "amd64" {
		out = append(out, backend.Emulated)
	}
	return out
}

func unknown(what, name string, known []string) error {
	err := fault.New(fault.Usage, "unknown %s %q", what, name)
	if n := nearest.Find(name, known); n != "" {
		return err.Hint("did you mean %q?", n)
	}
	return err.Hint("one of %s", strings.Join(known, ", "))
}
