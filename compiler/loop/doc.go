// Package loop is the kernel IR: loop nests with static trip counts over
// buffers, scalar expressions, registers, and a few tile statements that a
// dialect prints natively. What a kernel means is what backends/portable
// computes from it.
//
// It must not know graphs or ops. Reading order: expr.go (expressions and
// their simplification), index.go (integer index arithmetic), stmt.go
// (statements and kernels), tile.go (register tiles), print.go (the text form
// that names a kernel and keys caches).
package loop
