// Package backend is the contract of what makes a program run: traits of a
// target, sources, artifacts, sessions.
//
// It must not know graphs, ops, or any particular backend.
package backend

import (
	"context"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Traits describe a target well enough to lower and print for it.
type Traits struct {
	CPU   string   // the name that --cpu takes: native, x86-64-v3, …
	Arch  string   // amd64, arm64
	Lanes int      // f32 elements of a vector register
	Regs  int      // vector registers
	Flags []string // of the C compiler
	// Features are the instruction sets that code may use beyond the
	// architecture's least, sorted: amx-bf16, avx512-vnni, f16c, fma, …
	Features []string
}

// Has reports whether code may use an instruction set.
func (t Traits) Has(feature string) bool {
	_, ok := slices.BinarySearch(t.Features, feature)
	return ok
}

// Emulated is the feature of code that does by other instructions what those of
// the matrix unit would do (the features amx-…), so that it runs without one.
const Emulated = "amx-emulated"

// Needs are the features that a CPU must have to run the code.
func (t Traits) Needs() []string {
	if !t.Has(Emulated) {
		return t.Features
	}
	return slices.DeleteFunc(slices.Clone(t.Features), func(f string) bool { return strings.HasPrefix(f, "amx-") })
}

// Source is a file of an artifact's code. Flags are what its compilation gets
// beyond the flags of all.
type Source struct {
	Name  string
	Text  []byte
	Flags []string
}

// Variant is a model's program for one CPU.
type Variant struct {
	Program *program.Program
	Traits  Traits
}

// Options are what a build is asked for.
type Options struct {
	Name       string // prefix of the C symbols
	Traits     Traits
	Variants   []Variant // for more CPUs, in the same artifact
	Threads    int
	Pin        string // CPUs that threads are kept on: "", auto, or a list
	CacheDir   string // "" for none
	Compiler   string // "" finds one
	KeepSource bool
	// Separate asks for a source of its own for each kernel: programs that share
	// most kernels, built one after the other, then share their objects.
	Separate bool
	Manifest map[string]any // more entries for manifest.json
	Progress func(done, total int, what string)
}

// Session is an opened artifact or an interpreted program. Run reads inputs and
// writes outputs, all in row-major order; it may be called again, not at once
// by several.
type Session interface {
	Inputs() []program.Port
	Outputs() []program.Port
	Run(in []*tensor.Tensor, out []*tensor.Tensor) error
	Close() error
}

// Backend is a struct of functions; a nil one means that it cannot.
type Backend struct {
	Name string
	Doc  string
	// Target gives the traits of a CPU name ("" or native: this machine).
	Target func(cpu string) (Traits, error)
	// Emit prints a program as sources.
	Emit func(p *program.Program, o Options) ([]Source, error)
	// Build writes an artifact into an existing empty folder.
	Build func(ctx context.Context, p *program.Program, dir string, o Options) error
	// Open loads an artifact with a number of threads.
	Open func(dir string, threads int) (Session, error)
	// Direct runs a program without an artifact.
	Direct func(p *program.Program, threads int) (Session, error)
}

// NewOutputs makes tensors for a session's outputs.
func NewOutputs(s Session) []*tensor.Tensor {
	var out []*tensor.Tensor
	for _, p := range s.Outputs() {
		out = append(out, tensor.New(p.Type, p.Shape...))
	}
	return out
}
