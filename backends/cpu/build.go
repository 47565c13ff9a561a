package cpu

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/csource"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
)

// Backend compiles for the CPU.
func Backend() backend.Backend {
	return backend.Backend{
		Name:   "cpu",
		Doc:    "native code for CPUs, by way of C",
		Target: Target,
		Emit:   Emit,
		Build:  Build,
		Open:   Open,
	}
}

// common are the flags of every build: no tricks with floats beyond fused
// multiply-adds, wrapping integers, hidden symbols, no paths in the objects.
var common = []string{
	"-O2", "-std=gnu11", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
	"-fwrapv", "-fno-strict-aliasing", "-fvisibility=hidden", "-w",
}

// arrange gives the programs of an artifact, that of the widest CPU first: the
// first that a CPU can run is taken.
func arrange(p *program.Program, o backend.Options) ([]backend.Variant, error) {
	vs := append([]backend.Variant{{Program: p, Traits: o.Traits}}, o.Variants...)
	slices.SortStableFunc(vs, func(a, b backend.Variant) int {
		return cmp.Or(b.Traits.Lanes-a.Traits.Lanes, len(b.Traits.Needs())-len(a.Traits.Needs()))
	})
	for i, v := range vs {
		if v.Traits.Arch != vs[0].Traits.Arch {
			return nil, fault.New(fault.Usage, "%s and %s are CPUs of different architectures", vs[0].Traits.CPU, v.Traits.CPU).Hint("compile an artifact for each")
		}
		if i > 0 && v.Traits.CPU == vs[i-1].Traits.CPU {
			return nil, fault.New(fault.Usage, "the CPU %s is named twice", v.Traits.CPU)
		}
	}
	return vs, nil
}

// sources prints an artifact. Its entry points run on every CPU of the
// architecture: they find out what this one has.
func sources(vs []backend.Variant, weights int, o backend.Options) []backend.Source {
	srcs := csource.Program(vs, weights, o)
	for i, s := range srcs {
		if s.Name == "model.c" || s.Name == "runtime.c" {
			srcs[i].Flags = leastFlags[vs[0].Traits.Arch]
		}
	}
	return srcs
}

// leastFlags make code for any CPU of an architecture.
var leastFlags = map[string][]string{"amd64": {"-march=x86-64"}, "arm64": {"-march=armv8-a"}}

// Emit prints the sources of an artifact.
func Emit(p *program.Program, o backend.Options) ([]backend.Source, error) {
	vs, err := arrange(p, o)
	if err != nil {
		return nil, err
	}
	all, err := artifact.Share(programs(vs))
	if err != nil {
		return nil, err
	}
	return sources(vs, all.Weights, o), nil
}

func programs(vs []backend.Variant) []*program.Program {
	var out []*program.Program
	for _, v := range vs {
		out = append(out, v.Program)
	}
	return out
}

// Build writes an artifact into dir: libmodel.so, weights.bin, model.h,
// manifest.json, and the sources if they are to be kept.
func Build(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
	vs, err := arrange(p, o)
	if err != nil {
		return err
	}
	cc, err := toolchain.FindFor(vs[0].Traits.Arch, o.Compiler)
	if err != nil {
		return err
	}
	all, err := artifact.Share(programs(vs))
	if err != nil {
		return err
	}
	srcs := sources(vs, all.Weights, o)
	if err := cc.Build(ctx, srcs, common, []string{"-lm", "-lpthread", "-ldl"}, filepath.Join(dir, "libmodel.so"), o.CacheDir); err != nil {
		return err
	}
	if err := artifact.WriteWeights(all, dir); err != nil {
		return err
	}
	if err := keepSources(srcs, dir, o.KeepSource); err != nil {
		return err
	}
	m := artifact.New(vs, "cpu", o)
	m.Symbol, m.Compiler, m.Weights, m.Flags = csource.Identifier(o.Name), cc.Version, all.Weights, append(m.Flags, common...)
	return m.Write(dir, "libmodel.so", artifact.WeightsFile, "model.h")
}

// keepSources writes the header, and if they are to be kept the other sources
// into a folder of their own.
func keepSources(srcs []backend.Source, dir string, all bool) error {
	src := filepath.Join(dir, "src")
	if all {
		if err := os.MkdirAll(src, 0o777); err != nil {
			return fault.New(fault.Usage, "cannot write the artifact: %w", err)
		}
	}
	for _, s := range srcs {
		path := filepath.Join(dir, s.Name)
		if s.Name != "model.h" {
			path = filepath.Join(src, s.Name)
			if !all {
				continue
			}
		}
		if err := os.WriteFile(path, s.Text, 0o666); err != nil {
			return fault.New(fault.Usage, "cannot write the artifact: %w", err)
		}
	}
	return nil
}
