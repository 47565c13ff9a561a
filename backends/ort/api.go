package ort

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/compiler/fault"
)

// apiVersion is ORT_API_VERSION of the header that the indices below are from;
// newer libraries answer it too.
const apiVersion = 24

// Places in the OrtApi table of function pointers (onnxruntime_c_api.h; the
// table only ever grows at its end).
const (
	fnGetErrorCode                = 1
	fnGetErrorMessage             = 2
	fnCreateEnv                   = 3
	fnCreateSession               = 7
	fnCreateSessionFromArray      = 8
	fnRun                         = 9
	fnCreateSessionOptions        = 10
	fnSetOptimizedModelFilePath   = 11
	fnSetGraphOptimizationLevel   = 23
	fnSetIntraOpNumThreads        = 24
	fnSetInterOpNumThreads        = 25
	fnSessionGetInputCount        = 30
	fnSessionGetOutputCount       = 31
	fnSessionGetInputTypeInfo     = 33
	fnSessionGetOutputTypeInfo    = 34
	fnSessionGetInputName         = 36
	fnSessionGetOutputName        = 37
	fnCreateTensorAsValue         = 48
	fnCreateTensorWithDataAsValue = 49
	fnGetTensorMutableData        = 51
	fnFillStringTensor            = 52
	fnGetStringTensorDataLength   = 53
	fnGetStringTensorContent      = 54
	fnCastTypeInfoToTensorInfo    = 55
	fnGetTensorElementType        = 60
	fnGetDimensionsCount          = 61
	fnGetDimensions               = 62
	fnGetTensorTypeAndShape       = 65
	fnGetValueType                = 67
	fnCreateCPUMemoryInfo         = 69
	fnAllocatorFree               = 76
	fnGetAllocator                = 78
	fnReleaseStatus               = 93
	fnReleaseSession              = 95
	fnReleaseValue                = 96
	fnReleaseTypeInfo             = 98
	fnReleaseTensorTypeAndShape   = 99
	fnReleaseSessionOptions       = 100
	fnAddSessionConfigEntry       = 130
)

// Runtime is a loaded ONNX Runtime with its one environment. It lives as long
// as the process: the library starts threads and cannot be unloaded safely.
type Runtime struct {
	Path    string
	Version string

	table     uintptr
	env       uintptr
	memory    uintptr // description of CPU memory, for tensors that Go owns
	allocator uintptr
}

// loaded holds the runtimes of this process by resolved path, so that each is
// loaded once.
var loaded struct {
	sync.Mutex
	byPath map[string]*Runtime
}

// Open loads the library at path, or gives it again if it is loaded already.
func Open(path string) (*Runtime, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fault.New(fault.Toolchain, "no ONNX Runtime library: %w", err).Hint(installHint)
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, fault.New(fault.Toolchain, "no ONNX Runtime library: %w", err)
	}
	loaded.Lock()
	defer loaded.Unlock()
	if r := loaded.byPath[real]; r != nil {
		return r, nil
	}
	r, err := load(real)
	if err != nil {
		return nil, err
	}
	if loaded.byPath == nil {
		loaded.byPath = map[string]*Runtime{}
	}
	loaded.byPath[real] = r
	return r, nil
}

// allowNew lets the library read opsets that its release calls unfinished: a
// comparison wants its result, with whatever it makes of them.
const allowNew = "ALLOW_RELEASED_ONNX_OPSET_ONLY"

func load(path string) (*Runtime, error) {
	if _, set := os.LookupEnv(allowNew); !set {
		if err := os.Setenv(allowNew, "0"); err != nil {
			return nil, fault.New(fault.Toolchain, "cannot set %s: %w", allowNew, err)
		}
	}
	lib, err := dylib.Open(path)
	if err != nil {
		return nil, err
	}
	base, err := lib.Lookup("OrtGetApiBase")
	if err != nil {
		lib.Close()
		return nil, fault.New(fault.Toolchain, "not an ONNX Runtime library").InFile(path).Hint(installHint)
	}
	table := base.Call()
	r := &Runtime{Path: path, Version: dylib.String(dylib.FuncAt(table, 1).Call())}
	if r.table = dylib.FuncAt(table, 0).Call(apiVersion); r.table == 0 {
		return nil, fault.New(fault.Toolchain, "ONNX Runtime %s is older than API version %d", r.Version, apiVersion).InFile(path).Hint(installHint)
	}
	var p dylib.Pins
	defer p.Release()
	// Log level 3: errors only; messages would mix with the command's own.
	if err := r.check(fnCreateEnv, 3, p.CString("lathe"), p.Out(&r.env)); err != nil {
		return nil, err
	}
	// Allocator type 0 (device), memory type 0 (default).
	if err := r.check(fnCreateCPUMemoryInfo, 0, 0, p.Out(&r.memory)); err != nil {
		return nil, err
	}
	return r, r.check(fnGetAllocator, p.Out(&r.allocator))
}

// call calls a function of the table that cannot fail.
func (r *Runtime) call(fn int, args ...uintptr) uintptr {
	return dylib.FuncAt(r.table, fn).Call(args...)
}

// Error is what ONNX Runtime says about a failed call.
type Error struct {
	Code int // OrtErrorCode: 1 fail, 2 invalid argument, …, 9 no kernel for it
	Msg  string
}

func (e *Error) Error() string { return "ONNX Runtime: " + e.Msg }

// check calls a function of the table that returns a status.
func (r *Runtime) check(fn int, args ...uintptr) error {
	status := r.call(fn, args...)
	if status == 0 {
		return nil
	}
	defer r.call(fnReleaseStatus, status)
	return &Error{
		Code: int(int32(r.call(fnGetErrorCode, status))),
		Msg:  dylib.String(r.call(fnGetErrorMessage, status)),
	}
}

// codeNoKernel is the code 9 of OrtErrorCode: the model is right, but the
// runtime has no kernel for it.
const codeNoKernel = 9

// classed gives an error of the runtime its class: no kernel is unsupported,
// all else is the model's fault.
func classed(err error, what string) error {
	if e, ok := err.(*Error); ok && e.Code == codeNoKernel {
		return fault.New(fault.Unsupported, "%s: %w", what, err)
	}
	return fault.New(fault.BadModel, "%s: %w", what, err)
}
