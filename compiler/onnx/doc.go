// Package onnx is the table of ONNX ops: one row each, which says since which
// opset versions an op means what, and how it expands into core ops.
//
// A row has no shape inference of its own: the core ops that it expands into
// infer as they are built, and shapes that a model computes (Shape, Gather,
// Concat, …) fold to numbers on the way. The same expansion, run on constants
// with unlimited folding, is the reference evaluation of the op; so each op is
// defined once.
//
// The package must not know files, passes or kernels. Reading order: op.go (a
// row), ctx.go (what an expansion works with), expand.go (a whole graph),
// eval.go (evaluation), then one file per family of rows.
package onnx
