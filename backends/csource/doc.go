// Package csource prints kernels and programs as C.
//
// It must not know graphs or ops, nor run a compiler. Nothing that came from a
// model reaches the text but through Quote. Reading order: expr.go, stmt.go,
// tile.go and x86tile.go (register tiles), program.go (the entry points), and
// the C files under runtime.
package csource
