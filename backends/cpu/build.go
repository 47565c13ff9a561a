package cpu

import (
	"context"
	"os"
	"path/filepath"

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
		Emit: func(p *program.Program, o backend.Options) ([]backend.Source, error) {
			return csource.Program(p, o), nil
		},
		Build: Build,
		Open:  Open,
	}
}

// common are the flags of every build: no tricks with floats beyond fused
// multiply-adds, wrapping integers, hidden symbols, no paths in the objects.
var common = []string{
	"-O2", "-std=gnu11", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
	"-fwrapv", "-fno-strict-aliasing", "-fvisibility=hidden", "-w",
}

// Build writes an artifact into dir: libmodel.so, weights.bin, model.h,
// manifest.json, and the sources if they are to be kept.
func Build(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
	cc, err := toolchain.Find(o.Compiler)
	if err != nil {
		return err
	}
	srcs := csource.Program(p, o)
	flags := append(append([]string{}, common...), o.Traits.Flags...)
	if err := cc.Build(ctx, srcs, flags, []string{"-lm", "-lpthread", "-ldl"}, filepath.Join(dir, "libmodel.so"), o.CacheDir); err != nil {
		return err
	}
	if err := artifact.WriteWeights(p, dir); err != nil {
		return err
	}
	for _, s := range srcs {
		keep := s.Name == "model.h"
		path := filepath.Join(dir, s.Name)
		if o.KeepSource && !keep {
			if err := os.MkdirAll(filepath.Join(dir, "src"), 0o777); err != nil {
				return fault.New(fault.Usage, "cannot write the artifact: %w", err)
			}
			keep, path = true, filepath.Join(dir, "src", s.Name)
		}
		if keep {
			if err := os.WriteFile(path, s.Text, 0o666); err != nil {
				return fault.New(fault.Usage, "cannot write the artifact: %w", err)
			}
		}
	}
	m := artifact.New(p, "cpu", o)
	m.Symbol, m.Compiler, m.Flags = csource.Identifier(o.Name), cc.Version, flags
	return m.Write(dir, "libmodel.so", artifact.WeightsFile, "model.h")
}
