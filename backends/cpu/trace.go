package cpu

import (
	"sync"
	"time"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Traced is what a session of native code can do beyond running: it tells how
// long each of its steps took.
type Traced interface {
	// Manifest describes the artifact, its steps among it.
	Manifest() *artifact.Manifest
	// Trace runs once and adds the time of each step to the shortest that are
	// known; best has an entry per step, 0 for none yet.
	Trace(in, out []*tensor.Tensor, best []time.Duration) error
}

// probe is the one callback of the process: C has no way to give it a receiver,
// and callbacks are never freed.
var probe struct {
	sync.Mutex
	once  sync.Once
	hook  dylib.Func
	start time.Time
	best  []time.Duration
}

// probeHook makes the callback. The clock is read last before a step and first
// after it, so that only the way into Go and back is in the time.
func probeHook() dylib.Func {
	probe.once.Do(func() {
		probe.hook = dylib.Callback(func(step, begin int32) {
			if begin != 0 {
				probe.start = time.Now()
				return
			}
			d := time.Since(probe.start)
			if b := &probe.best[step]; *b == 0 || d < *b {
				*b = max(d, 1)
			}
		})
	})
	return probe.hook
}

func (s *session) Manifest() *artifact.Manifest { return s.m }

func (s *session) Trace(in, out []*tensor.Tensor, best []time.Duration) error {
	if len(best) != len(s.m.Steps) {
		panic("BUG: cpu: times for another artifact")
	}
	set, err := s.lib.Lookup(s.m.Symbol + "_set_trace")
	if err != nil {
		return fault.New(fault.BadModel, "the artifact has no trace hook").Hint("compile the model again")
	}
	probe.Lock()
	defer probe.Unlock()
	probe.best = best
	set.Call(uintptr(probeHook()))
	defer set.Call(0)
	return s.Run(in, out)
}
