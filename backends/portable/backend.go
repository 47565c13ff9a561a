package portable

import (
	"context"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
)

// Backend runs programs in pure Go.
func Backend() backend.Backend {
	return backend.Backend{
		Name:   "portable",
		Doc:    "pure Go: any machine, no C compiler, slower",
		Target: Target,
		Build:  Build,
		Open:   Open,
		Direct: Direct,
	}
}

// Target gives the traits that suit Go code: channels in blocks of eight, tiles
// large enough that their upkeep does not show. Every CPU name is this one.
func Target(cpu string) (backend.Traits, error) {
	switch cpu {
	case "", "native", "portable":
		return backend.Traits{CPU: "portable", Arch: "any", Lanes: 8, Regs: 32}, nil
	}
	return backend.Traits{}, fault.New(fault.Usage, "the portable target is the same for every CPU; %q is not known", cpu).Hint("leave --cpu out")
}

// programFile is the kernels and steps.
const programFile = "program.json"

// Build writes an artifact: the program, its weights, the manifest.
func Build(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, k := range p.Kernels {
		if _, err := compile(k); err != nil {
			return err
		}
	}
	text, err := Encode(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, programFile), text, 0o666); err != nil {
		return fault.New(fault.Usage, "cannot write the artifact: %w", err)
	}
	if err := artifact.WriteWeights(p, dir); err != nil {
		return err
	}
	return artifact.New([]backend.Variant{{Program: p, Traits: o.Traits}}, "portable", o).Write(dir, programFile, artifact.WeightsFile)
}

// Open loads an artifact; threads 0 takes the number that it was built with.
func Open(dir string, threads int) (backend.Session, error) {
	m, err := artifact.Read(dir)
	if err != nil {
		return nil, err
	}
	if m.Target != "portable" {
		return nil, fault.New(fault.BadModel, "the artifact is for the target %s, not portable", m.Target).InFile(dir)
	}
	path := filepath.Join(dir, programFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "the artifact lacks its program: %w", err).InFile(dir)
	}
	p, err := Decode(text)
	if err != nil {
		return nil, fault.New(fault.BadModel, "broken program: %w", err).InFile(path).Hint("compile the model again")
	}
	weights := artifact.Aligned(p.Weights)
	if err := artifact.ReadWeights(dir, weights); err != nil {
		return nil, err
	}
	if threads <= 0 {
		threads = m.Threads
	}
	s, err := newSession(p, weights, threads)
	if err != nil {
		return nil, fault.New(fault.BadModel, "broken program: %w", err).InFile(path).Hint("compile the model again")
	}
	return s, nil
}

// Direct runs a program that is in memory.
func Direct(p *program.Program, threads int) (backend.Session, error) {
	weights := artifact.Aligned(p.Weights)
	if err := artifact.LoadWeights(p, weights); err != nil {
		return nil, err
	}
	return newSession(p, weights, threads)
}
