//go:build !((linux || darwin) && (amd64 || arm64)) || nodylib

package dylib

import (
	"runtime"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Supported reports whether this build can load libraries.
const Supported = false

func openLibrary(path string) (uintptr, error) {
	return 0, fault.New(fault.Toolchain, "this build of lathe cannot load libraries (%s/%s or the tag nodylib)", runtime.GOOS, runtime.GOARCH).
		InFile(path).Hint("use the portable target, or a build for Linux or macOS without that tag")
}

func lookupSymbol(uintptr, string) (uintptr, error) {
	panic("BUG: dylib: symbol looked up without a library")
}

func closeLibrary(uintptr) error { return nil }

func call(uintptr, ...uintptr) uintptr { panic("BUG: dylib: call without a library") }
