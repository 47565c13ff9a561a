package cli

import (
	"runtime"

	"github.com/spf13/pflag"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

// registerPin adds --pin, which may stand without a value.
func registerPin(fl *pflag.FlagSet, to *string) {
	fl.StringVar(to, "pin", "", "keep each thread on a CPU of its own: auto, or a list such as 0-3,8")
	fl.Lookup("pin").NoOptDefVal = "auto"
}

// registerThreads adds what says how a session uses the CPUs. 0 threads stand
// for what an artifact was made with, for a model for one.
func (o *engineOptions) registerThreads(fl *pflag.FlagSet) {
	fl.IntVar(&o.threads, "threads", 0, "threads that the backend runs with (default: 1, of an artifact what it was made with)")
	registerPin(fl, &o.pin)
}

// settle checks the threads and gives the default of models.
func (o *engineOptions) settle(path string) error {
	if o.threads < 0 {
		return fault.New(fault.Usage, "--threads %d is less than 1", o.threads)
	}
	if o.threads == 0 && !isArtifact(path) {
		o.threads = 1
	}
	return nil
}

// pinned keeps a session's threads on CPUs. The calling thread is one of them,
// so this goroutine stays on it.
func pinned(ses backend.Session, cpus string) error {
	if cpus == "" {
		return nil
	}
	p, ok := ses.(cpu.Pinned)
	if !ok {
		return fault.New(fault.Usage, "--pin has no meaning for this backend").Hint("use it with --backend cpu")
	}
	runtime.LockOSThread()
	return p.Pin(cpus)
}
