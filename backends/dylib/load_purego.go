//go:build (linux || darwin) && (amd64 || arm64) && !nodylib

package dylib

import (
	"github.com/ebitengine/purego"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Supported reports whether this build can load libraries.
const Supported = true

func openLibrary(path string) (uintptr, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return 0, fault.New(fault.Toolchain, "cannot load the library: %w", err).InFile(path)
	}
	return h, nil
}

func lookupSymbol(handle uintptr, name string) (uintptr, error) { return purego.Dlsym(handle, name) }

func closeLibrary(handle uintptr) error { return purego.Dlclose(handle) }

func call(f uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(f, args...)
	return r
}
