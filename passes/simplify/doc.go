// Package simplify makes ONNX graphs smaller without changing what they
// compute: constants are folded, nodes that do nothing vanish, normalizations
// go into the weights before them, transposes and reshapes merge.
//
// It must not know core ops, kernels or backends. Reading order: simplify.go
// (the pass and its rounds), rules.go (the table), operands.go (what rules ask
// about values), then one file per family of rules.
package simplify
