package dylib

import (
	"runtime"
	"unsafe"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Library is a loaded shared library.
type Library struct {
	path   string
	handle uintptr
}

// Func is the address of a C function.
type Func uintptr

// Open loads the library at path. The path is taken as it is: no search.
func Open(path string) (*Library, error) {
	h, err := openLibrary(path)
	if err != nil {
		return nil, err
	}
	return &Library{path: path, handle: h}, nil
}

// Lookup finds a function by name.
func (l *Library) Lookup(name string) (Func, error) {
	p, err := lookupSymbol(l.handle, name)
	if err != nil || p == 0 {
		return 0, fault.New(fault.BadModel, "the library has no function %s", name).InFile(l.path)
	}
	return Func(p), nil
}

// Close unloads the library: no function of it may be running or be called
// afterwards.
func (l *Library) Close() error {
	if l.handle == 0 {
		return nil
	}
	h := l.handle
	l.handle = 0
	return closeLibrary(h)
}

// Call calls a C function whose arguments are all integers or pointers, and
// gives its integer result. Memory behind pointers must stay alive: use Pins.
func (f Func) Call(args ...uintptr) uintptr { return call(uintptr(f), args...) }

// FuncAt reads function i of a C table of function pointers.
func FuncAt(table uintptr, i int) Func {
	return Func(*(*uintptr)(Pointer(table + uintptr(i)*unsafe.Sizeof(table))))
}

// Pointer turns an address that C gave into a pointer. It must not be used for
// Go memory.
func Pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// String copies a C string.
func String(addr uintptr) string {
	if addr == 0 {
		return ""
	}
	p := (*byte)(Pointer(addr))
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// Pins keeps Go memory in place while C uses it.
type Pins struct{ p runtime.Pinner }

// Bytes pins a slice and gives its address; an empty one gets an address too,
// since C libraries take a null pointer for a missing tensor.
func (p *Pins) Bytes(b []byte) uintptr {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	p.p.Pin(&b[0])
	return uintptr(unsafe.Pointer(&b[0]))
}

// CString pins a zero-terminated copy of s.
func (p *Pins) CString(s string) uintptr { return p.Bytes(append([]byte(s), 0)) }

// Words pins a slice of pointers or integers of pointer size.
func (p *Pins) Words(w []uintptr) uintptr {
	if len(w) == 0 {
		w = make([]uintptr, 1)
	}
	p.p.Pin(&w[0])
	return uintptr(unsafe.Pointer(&w[0]))
}

// Int64s pins a slice of 64-bit integers.
func (p *Pins) Int64s(v []int64) uintptr {
	if len(v) == 0 {
		v = make([]int64, 1)
	}
	p.p.Pin(&v[0])
	return uintptr(unsafe.Pointer(&v[0]))
}

// Out pins a word that C writes its result to.
func (p *Pins) Out(w *uintptr) uintptr {
	p.p.Pin(w)
	return uintptr(unsafe.Pointer(w))
}

// Release lets the memory go.
func (p *Pins) Release() { p.p.Unpin() }
