// Package onnxgo is lathe's side of github.com/owulveryck/onnx-go: a second
// reader for the models that onnx-go can decode, and a computation backend
// that gives programs written for onnx-go compiled kernels.
//
// onnx-go hands a backend each operation's name and attributes, and tensors of
// five element types. It drops opset imports, domains, node names and unnamed
// dimensions, so the reader takes the opset and such dimensions from the file's
// head, and refuses files in which the rest would change the meaning. It must not know how a
// model is compiled: the caller passes a function. Reading order: graph.go,
// read.go, backend.go, tensor.go.
package onnxgo
