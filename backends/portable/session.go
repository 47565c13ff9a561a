package portable

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

type session struct {
	p       *program.Program
	threads int
	mem     artifact.Memory
	codes   map[*loop.Kernel]*code
	frames  map[*code][]*frame // by thread
}

// newSession makes a program's kernels ready; weights has the program's
// constants.
func newSession(p *program.Program, weights []byte, threads int) (*session, error) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := artifact.CheckRoom(p.Workspace, p.Inputs, p.Outputs); err != nil {
		return nil, err
	}
	s := &session{p: p, threads: threads, codes: map[*loop.Kernel]*code{}, frames: map[*code][]*frame{}}
	s.mem.Workspace, s.mem.Weights = artifact.Aligned(p.Workspace), weights
	for _, k := range p.Kernels {
		c, err := compile(k)
		if err != nil {
			return nil, err
		}
		s.codes[k] = c
		s.frames[c] = make([]*frame, threads)
	}
	return s, nil
}

// Inputs is the signature's first half.
func (s *session) Inputs() []program.Port { return s.p.Inputs }

// Outputs is the signature's second half.
func (s *session) Outputs() []program.Port { return s.p.Outputs }

// Close has nothing to give back but memory.
func (s *session) Close() error { return nil }

// Run executes the steps in order.
func (s *session) Run(in, out []*tensor.Tensor) error {
	if err := artifact.CheckTensors("input", s.p.Inputs, in); err != nil {
		return err
	}
	if err := artifact.CheckTensors("output", s.p.Outputs, out); err != nil {
		return err
	}
	s.mem.In, s.mem.Out = in, out
	for i, st := range s.p.Steps {
		if err := s.step(st); err != nil {
			return fmt.Errorf("internal error: step %d (%s), kernel %s: %w", i, st.Label, st.Kernel.Family, err)
		}
	}
	return nil
}

func (s *session) step(st program.Step) error {
	c := s.codes[st.Kernel]
	args := make([]mem, len(st.Args))
	for i, a := range st.Args {
		args[i] = bind(a.Type, s.mem.Bytes(a))
	}
	frame := func(t int) *frame {
		f := s.frames[c][t]
		if f == nil {
			f = newFrame(c)
			s.frames[c][t] = f
		}
		copy(f.bufs, args)
		return f
	}
	if c.par == nil {
		return guarded(func() { run(c.body, frame(0)) })
	}
	n := c.par.Var.N
	grain := max(1, n/(4*s.threads))
	if c.lanes != nil {
		grain = max(grain, maxChunk)
	}
	workers := min(s.threads, (n+grain-1)/grain)
	if workers <= 1 {
		return guarded(func() { c.span(frame(0), 0, n) })
	}
	var next atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for t := range workers {
		f := frame(t)
		wg.Go(func() {
			errs[t] = guarded(func() {
				for {
					lo := int(next.Add(int64(grain))) - grain
					if lo >= n {
						return
					}
					c.span(f, lo, min(lo+grain, n))
				}
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// span runs some iterations of the parallel loop.
func (c *code) span(f *frame, lo, hi int) {
	if c.lanes != nil {
		c.lanes.run(f, lo, hi)
		return
	}
	for i := lo; i < hi; i++ {
		f.vars[c.slot] = i
		run(c.body, f)
	}
}

// guarded turns an access outside a buffer into an error: an artifact may have
// been changed by hand.
func guarded(g func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(runtime.Error)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	g()
	return nil
}
