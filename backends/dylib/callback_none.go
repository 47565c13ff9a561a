//go:build !((linux || darwin) && (amd64 || arm64)) || nodylib

package dylib

// Callback would give the address of a C function; nothing that could call it
// can be loaded here.
func Callback(func(a, b int32)) Func { panic("BUG: dylib: callback without a library") }
