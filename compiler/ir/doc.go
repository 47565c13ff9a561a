// Package ir is the graph that the ONNX level and the core level share: typed
// values, nodes, attributes, verification.
//
// It must not know ONNX ops, core ops or kernels: a node's op is a name, and
// the tables of compiler/onnx and compiler/core say what it means. Reading
// order: type.go, graph.go, attr.go, verify.go.
package ir
