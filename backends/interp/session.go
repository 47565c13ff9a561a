package interp

import (
	"errors"
	"fmt"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Backend interprets programs; it makes no artifacts.
func Backend() backend.Backend {
	return backend.Backend{
		Name:   "interp",
		Doc:    "the kernel IR, statement by statement: slow, checks every access",
		Target: Target,
		Direct: func(p *program.Program, _ int) (backend.Session, error) { return New(p, Options{}) },
	}
}

// Target gives traits with vectors, so that the kernels have the forms that
// they have on a CPU.
func Target(string) (backend.Traits, error) {
	return backend.Traits{CPU: "interp", Arch: "any", Lanes: 8, Regs: 16}, nil
}

// Options vary what the IR leaves open.
type Options struct {
	// Backwards runs the iterations of Vector and parallel loops from the last
	// to the first: what differs then depended on an order that nobody promises.
	Backwards bool
}

// Session is a program with its memory.
type Session struct {
	p       *program.Program
	o       Options
	mem     artifact.Memory
	kernels map[*loop.Kernel]*kernel
}

// New makes a session of a program.
func New(p *program.Program, o Options) (*Session, error) {
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	s := &Session{p: p, o: o, kernels: map[*loop.Kernel]*kernel{}}
	s.mem.Workspace = artifact.Aligned(p.Workspace)
	s.mem.Weights = artifact.Aligned(p.Weights)
	if err := artifact.LoadWeights(p, s.mem.Weights); err != nil {
		return nil, err
	}
	for _, k := range p.Kernels {
		s.kernels[k] = prepare(k)
	}
	return s, nil
}

// Inputs is the signature's first half.
func (s *Session) Inputs() []program.Port { return s.p.Inputs }

// Outputs is the signature's second half.
func (s *Session) Outputs() []program.Port { return s.p.Outputs }

// Close has nothing to give back.
func (s *Session) Close() error { return nil }

// Run executes the steps in order.
func (s *Session) Run(in, out []*tensor.Tensor) error {
	if err := artifact.CheckTensors("input", s.p.Inputs, in); err != nil {
		return err
	}
	if err := artifact.CheckTensors("output", s.p.Outputs, out); err != nil {
		return err
	}
	s.mem.In, s.mem.Out = in, out
	poison(s.mem.Workspace)
	for _, t := range out {
		poison(t.Bytes())
	}
	for i, st := range s.p.Steps {
		if err := s.step(st); err != nil {
			return fmt.Errorf("internal error: step %d (%s), kernel %s: %w", i, st.Label, st.Kernel.Family, err)
		}
	}
	return nil
}

// poison fills memory with ones: NaN in every float type, −1 in the integers.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// broken is a fault of a kernel, found while it runs.
type broken struct{ error }

func fail(format string, args ...any) {
	panic(broken{fmt.Errorf(format, args...)})
}

func (s *Session) step(st program.Step) (err error) {
	defer func() {
		if r := recover(); r != nil {
			var b broken
			if e, ok := r.(error); !ok || !errors.As(e, &b) {
				panic(r)
			}
			err = b.error
		}
	}()
	x := &exec{kernel: s.kernels[st.Kernel], o: s.o, vars: map[*loop.Var]int64{}, regs: map[*loop.Reg]value{}, bufs: map[*loop.Buffer][]byte{}}
	for i, q := range st.Kernel.Params {
		x.bufs[q] = s.mem.Bytes(st.Args[i])
	}
	for _, l := range st.Kernel.Locals {
		x.bufs[l] = make([]byte, l.Len*l.Type.Size())
	}
	x.scrub()
	x.body(st.Kernel.Body)
	return nil
}
