// Package onnxfile reads and writes ONNX files without loss: models with
// external data, functions and subgraphs, and the recorded tensors of test
// data sets.
//
// A model that nobody changed is written as it was read: nodes, attributes,
// descriptions, metadata and order, and fields that lathe does not interpret.
// It must not know what ops mean. Reading order: model.go, read.go,
// graphin.go, tensorin.go, external.go, then write.go, graphout.go,
// tensorout.go; types.go and attrs.go hold both directions; inline.go expands
// functions; data.go reads and writes single tensors, sequences, optionals.
package onnxfile
