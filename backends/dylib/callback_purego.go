//go:build (linux || darwin) && (amd64 || arm64) && !nodylib

package dylib

import "github.com/ebitengine/purego"

// Callback gives the address of a C function void f(int, int) that calls f. It
// lives as long as the process: make few.
func Callback(f func(a, b int32)) Func { return Func(purego.NewCallback(f)) }
