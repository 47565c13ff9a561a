package cpu

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

type session struct {
	m       *artifact.Manifest
	lib     *dylib.Library
	run     dylib.Func
	ws      []byte
	free    func() // gives ws back
	in, out []program.Port
}

// Open loads an artifact; threads 0 takes the number that it was built with.
func Open(dir string, threads int) (backend.Session, error) {
	m, err := artifact.Read(dir)
	if err != nil {
		return nil, err
	}
	if m.Arch != runtime.GOARCH {
		return nil, fault.New(fault.Toolchain, "the artifact is for %s, this machine is %s", m.Arch, runtime.GOARCH).InFile(dir)
	}
	abs, err := filepath.Abs(filepath.Join(dir, "libmodel.so"))
	if err != nil {
		return nil, err
	}
	lib, err := dylib.Open(abs)
	if err != nil {
		return nil, damaged(m, abs, err)
	}
	s := &session{m: m, lib: lib}
	if err := s.bind(threads); err != nil {
		lib.Close()
		if f := fault.As(err); f != nil && f.File == "" {
			f.InFile(dir)
		}
		return nil, err
	}
	return s, nil
}

// damaged says that a library which cannot be loaded is not the one that was
// built, where that is so.
func damaged(m *artifact.Manifest, path string, err error) error {
	h, readErr := artifact.HashFile(path)
	switch {
	case readErr != nil:
		return fault.New(fault.BadModel, "the artifact's library cannot be read: %w", readErr).Hint("compile the model again")
	case h != m.Hashes[filepath.Base(path)]:
		return fault.New(fault.BadModel, "the library is not the one that the manifest describes: %w", err).InFile(path).Hint("compile the model again")
	}
	return err
}

func (s *session) bind(threads int) error {
	var err error
	f := map[string]dylib.Func{}
	for _, n := range []string{"run", "load", "workspace_size", "set_threads", "error", "variant"} {
		if f[n], err = s.lib.Lookup(s.m.Symbol + "_" + n); err != nil {
			return err
		}
	}
	chosen := int(int32(f["variant"].Call()))
	if chosen < 0 {
		if lacks := cpuid.Lacks(s.m.Features); len(lacks) > 0 { // asked for now: CPUID is slow where a hypervisor answers
			return fault.New(fault.Toolchain, "the artifact is for %s and needs %s, which this machine does not have", s.m.CPU, strings.Join(lacks, ", ")).
				Hint("compile with --cpu native on this machine, or --cpu %s", Native())
		}
		return fault.New(fault.Toolchain, "the artifact cannot run here: %s", dylib.String(f["error"].Call())).Hint("compile with --cpu native on this machine, or --cpu %s; the variable LATHE_CPU chooses among the variants", Native())
	}
	s.m = s.m.Of(chosen)
	if threads > 0 {
		f["set_threads"].Call(uintptr(threads))
	}
	if f["load"].Call(0) != 0 {
		return fault.New(fault.BadModel, "the weights could not be loaded: %s", dylib.String(f["error"].Call())).Hint("weights.bin must lie beside libmodel.so, unchanged")
	}
	s.run = f["run"]
	for _, q := range []struct {
		kind string
		from []artifact.Port
		to   *[]program.Port
	}{{"input", s.m.Inputs, &s.in}, {"output", s.m.Outputs, &s.out}} {
		if *q.to, err = artifact.Ports(q.from); err != nil {
			return err
		}
		if err := s.checkPorts(q.kind, *q.to); err != nil {
			return err
		}
	}
	size := int(f["workspace_size"].Call())
	if err := artifact.CheckRoom(size, s.in, s.out); err != nil {
		return err
	}
	s.ws, s.free = artifact.Pages(size)
	return nil
}

// checkPorts holds the manifest against the library's own signature: the
// library reads and writes as many bytes as it was built for.
func (s *session) checkPorts(kind string, ports []program.Port) error {
	get := map[string]dylib.Func{}
	for _, n := range []string{"count", "type", "rank", "shape"} {
		f, err := s.lib.Lookup(s.m.Symbol + "_" + kind + "_" + n)
		if err != nil {
			return err
		}
		get[n] = f
	}
	same := int32(get["count"].Call()) == int32(len(ports))
	for i := 0; same && i < len(ports); i++ {
		p, at := ports[i], uintptr(i)
		same = int32(get["type"].Call(at)) == int32(p.Type) && int32(get["rank"].Call(at)) == int32(len(p.Shape))
		if !same || len(p.Shape) == 0 {
			continue
		}
		dims := unsafe.Slice((*int64)(dylib.Pointer(get["shape"].Call(at))), len(p.Shape))
		same = slices.EqualFunc(dims, p.Shape, func(a int64, b int) bool { return a == int64(b) })
	}
	if !same {
		return fault.New(fault.BadModel, "the %ss in the manifest are not those of the library", kind).Hint("compile the model again")
	}
	return nil
}

func (s *session) Inputs() []program.Port  { return s.in }
func (s *session) Outputs() []program.Port { return s.out }

func (s *session) Run(in, out []*tensor.Tensor) error {
	if err := artifact.CheckTensors("input", s.in, in); err != nil {
		return err
	}
	if err := artifact.CheckTensors("output", s.out, out); err != nil {
		return err
	}
	var pins dylib.Pins
	defer pins.Release()
	words := func(ts []*tensor.Tensor) uintptr {
		w := make([]uintptr, len(ts))
		for i, t := range ts {
			w[i] = pins.Bytes(t.Bytes())
		}
		return pins.Words(w)
	}
	if r := s.run.Call(words(in), words(out), pins.Bytes(s.ws)); r != 0 {
		return fmt.Errorf("the artifact's run returned %d", r)
	}
	runtime.KeepAlive(s)
	return nil
}

// Pinned is what a session of native code can do with threads: keep each on a
// CPU of its own, those that call among them.
type Pinned interface {
	// Pin takes auto, a list such as 0-3,8, or off; it comes before the first run.
	Pin(cpus string) error
}

func (s *session) Pin(cpus string) error {
	set, err := s.lib.Lookup(s.m.Symbol + "_set_pin")
	if err != nil {
		return err
	}
	var pins dylib.Pins
	defer pins.Release()
	if int32(set.Call(pins.CString(cpus))) != 0 {
		return fault.New(fault.Usage, "no CPU of %q can be used by this process", cpus).Hint("give auto, or a list such as 0-3,8")
	}
	return nil
}

func (s *session) Close() error {
	if s.free != nil {
		s.free()
		s.ws, s.free = nil, nil
	}
	return s.lib.Close()
}
