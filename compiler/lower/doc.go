// Package lower turns a core graph into a program of kernels: it chooses which
// values get memory and which are computed where they are read, in which
// layout each value lies, and which generator makes each kernel.
//
// It must not know ONNX, files, or how kernels are printed. Reading order:
// lower.go (the order of the steps), prepare.go (rewrites of the core graph),
// group.go (what is fused with what), layout.go, access.go (a value at an
// index as an expression), then the generators: pointwise.go, rows.go,
// nest.go, ordered.go, and the tiled ones: tile.go, conv.go, dot.go,
// recurrent.go.
package lower
