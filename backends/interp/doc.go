// Package interp runs programs by walking their kernels' statements, one
// element at a time: the definition of the kernel IR, kept plain so that it can
// be read beside compiler/loop. All memory that a kernel has not written holds
// NaN, and every access is checked: a wrong lowering shows itself here.
//
// It must not know graphs, ops, or how other backends run kernels. Reading
// order: session.go, exec.go (statements), eval.go (expressions), tile.go.
package interp
