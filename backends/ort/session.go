package ort

import (
	"runtime"
	"strconv"

	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// OptLevel is how far ONNX Runtime rewrites a model before it runs it.
type OptLevel int

// The graph optimisation levels of the C API.
const (
	OptDisabled OptLevel = 0
	OptBasic    OptLevel = 1
	OptExtended OptLevel = 2
	OptAll      OptLevel = 99
)

// Options are the settings of a session. The zero value is one thread and no
// graph optimisation: the setting of reference results.
type Options struct {
	IntraThreads       int // threads within an op; 0 means 1
	OptLevel           OptLevel
	OptimizedModelPath string // where the rewritten model is written, "" for nowhere
	NoSpinning         bool   // threads sleep when idle instead of spinning
}

// Info is the name and, for tensors, the element type of an input or output.
type Info struct {
	Name  string
	DType tensor.DType // Invalid for sequences, maps and optional values
	Shape []int        // -1 for a free dimension
}

// Session is a model that is ready to run. Run may be called by one goroutine
// at a time.
type Session struct {
	rt      *Runtime
	handle  uintptr
	model   []byte // the library reads weights from it as long as it lives
	Inputs  []Info
	Outputs []Info
}

// LoadFile makes a session from a model file; its external data is found
// beside it.
func (r *Runtime) LoadFile(path string, o Options) (*Session, error) {
	return r.session(o, func(p *dylib.Pins, opts, out uintptr) error {
		return r.check(fnCreateSession, r.env, p.CString(path), opts, out)
	}, nil)
}

// LoadBytes makes a session from the bytes of a model.
func (r *Runtime) LoadBytes(model []byte, o Options) (*Session, error) {
	return r.session(o, func(p *dylib.Pins, opts, out uintptr) error {
		return r.check(fnCreateSessionFromArray, r.env, p.Bytes(model), uintptr(len(model)), opts, out)
	}, model)
}

func (r *Runtime) session(o Options, create func(p *dylib.Pins, opts, out uintptr) error, model []byte) (*Session, error) {
	var p dylib.Pins
	defer p.Release()
	opts, err := r.options(&p, o)
	if err != nil {
		return nil, err
	}
	defer r.call(fnReleaseSessionOptions, opts)
	s := &Session{rt: r, model: model}
	if err := create(&p, opts, p.Out(&s.handle)); err != nil {
		return nil, classed(err, "the peer refuses the model")
	}
	if s.Inputs, err = s.infos(fnSessionGetInputCount, fnSessionGetInputName, fnSessionGetInputTypeInfo); err == nil {
		s.Outputs, err = s.infos(fnSessionGetOutputCount, fnSessionGetOutputName, fnSessionGetOutputTypeInfo)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (r *Runtime) options(p *dylib.Pins, o Options) (uintptr, error) {
	var opts uintptr
	if err := r.check(fnCreateSessionOptions, p.Out(&opts)); err != nil {
		return 0, err
	}
	set := func(fn int, args ...uintptr) error { return r.check(fn, append([]uintptr{opts}, args...)...) }
	err := set(fnSetGraphOptimizationLevel, uintptr(o.OptLevel))
	if err == nil {
		err = set(fnSetIntraOpNumThreads, uintptr(max(1, o.IntraThreads)))
	}
	if err == nil {
		err = set(fnSetInterOpNumThreads, 1)
	}
	if err == nil && o.OptimizedModelPath != "" {
		err = set(fnSetOptimizedModelFilePath, p.CString(o.OptimizedModelPath))
	}
	if err == nil && o.NoSpinning {
		err = set(fnAddSessionConfigEntry, p.CString("session.intra_op.allow_spinning"), p.CString("0"))
	}
	if err != nil {
		r.call(fnReleaseSessionOptions, opts)
		return 0, err
	}
	return opts, nil
}

func (s *Session) infos(count, name, typeInfo int) ([]Info, error) {
	var p dylib.Pins
	defer p.Release()
	var n uintptr
	if err := s.rt.check(count, s.handle, p.Out(&n)); err != nil {
		return nil, err
	}
	all := make([]Info, n)
	for i := range all {
		var text, ti uintptr
		if err := s.rt.check(name, s.handle, uintptr(i), s.rt.allocator, p.Out(&text)); err != nil {
			return nil, err
		}
		all[i].Name = dylib.String(text)
		if err := s.rt.check(fnAllocatorFree, s.rt.allocator, text); err != nil {
			return nil, err
		}
		if err := s.rt.check(typeInfo, s.handle, uintptr(i), p.Out(&ti)); err != nil {
			return nil, err
		}
		var shape uintptr
		err := s.rt.check(fnCastTypeInfoToTensorInfo, ti, p.Out(&shape))
		if err == nil && shape != 0 {
			all[i].DType, all[i].Shape, err = s.rt.typeAndShape(shape)
		}
		s.rt.call(fnReleaseTypeInfo, ti)
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Close frees the session.
func (s *Session) Close() {
	if s.handle != 0 {
		s.rt.call(fnReleaseSession, s.handle)
		s.handle = 0
		runtime.KeepAlive(s.model)
	}
}

// Run computes all outputs from the inputs, both in the model's order.
func (s *Session) Run(inputs []*tensor.Tensor) ([]*tensor.Tensor, error) {
	prepared, err := s.Prepare(inputs)
	if err != nil {
		return nil, err
	}
	defer prepared.Close()
	if err := prepared.Run(); err != nil {
		return nil, err
	}
	return prepared.Outputs()
}

// Prepared is a session with its inputs handed over, so that timing a Run
// counts nothing but the run.
type Prepared struct {
	s       *Session
	pins    dylib.Pins
	in, out []uintptr // OrtValues
	args    []uintptr // the arguments of Run
}

// Prepare hands the inputs over. They must not change until Close.
func (s *Session) Prepare(inputs []*tensor.Tensor) (*Prepared, error) {
	if len(inputs) != len(s.Inputs) {
		return nil, fault.New(fault.BadModel, "the model has %d inputs, %d were given", len(s.Inputs), len(inputs))
	}
	q := &Prepared{s: s, in: make([]uintptr, len(s.Inputs)), out: make([]uintptr, len(s.Outputs))}
	for i, t := range inputs {
		v, err := s.rt.value(&q.pins, t)
		if err != nil {
			q.Close()
			return nil, fault.New(fault.Unsupported, "input %s: %w", strconv.Quote(s.Inputs[i].Name), err)
		}
		q.in[i] = v
	}
	q.args = []uintptr{s.handle, 0, q.names(s.Inputs), q.pins.Words(q.in), uintptr(len(q.in)),
		q.names(s.Outputs), uintptr(len(q.out)), q.pins.Words(q.out)}
	return q, nil
}

func (q *Prepared) names(infos []Info) uintptr {
	w := make([]uintptr, len(infos))
	for i, x := range infos {
		w[i] = q.pins.CString(x.Name)
	}
	return q.pins.Words(w)
}

// Run computes the outputs once; those of an earlier run are dropped.
func (q *Prepared) Run() error {
	q.drop()
	if err := q.s.rt.check(fnRun, q.args...); err != nil {
		return classed(err, "the peer cannot run the model")
	}
	return nil
}

// Outputs copies the outputs of the last run.
func (q *Prepared) Outputs() ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(q.out))
	for i, v := range q.out {
		t, err := q.s.rt.tensor(v)
		if err != nil {
			return nil, fault.New(fault.Unsupported, "output %s: %w", strconv.Quote(q.s.Outputs[i].Name), err)
		}
		out[i] = t
	}
	return out, nil
}

func (q *Prepared) drop() {
	for i, v := range q.out {
		if v != 0 {
			q.s.rt.call(fnReleaseValue, v)
			q.out[i] = 0
		}
	}
}

// Close frees inputs and outputs.
func (q *Prepared) Close() {
	q.drop()
	for i, v := range q.in {
		if v != 0 {
			q.s.rt.call(fnReleaseValue, v)
			q.in[i] = 0
		}
	}
	q.pins.Release()
}
