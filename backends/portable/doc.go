// Package portable runs programs in pure Go, on any machine and without a C
// compiler: each kernel becomes closures once, vector loops work on whole
// slices, register tiles are tight loops, and threads share parallel loops.
//
// It must not know graphs, ops, or other ways to run kernels; what a kernel
// means is what backends/interp computes from it. Reading order: backend.go
// (build and open), encode.go and decode.go (the program on disk), session.go
// (runs), frame.go, compile.go (statements), scalar.go (one element), vector.go,
// vecload.go, vecops.go, choose.go (a slice of lanes), tile.go.
package portable
