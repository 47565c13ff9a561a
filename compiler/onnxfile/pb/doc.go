// Package pb is the wire form of ONNX: one Go struct per message, decoded from
// and encoded to protocol buffer bytes without loss.
//
// The structs are generated from onnx.txt (messages_gen.go; go run ./gen).
// Fields that onnx.txt does not know are kept and written back, and so is the
// difference between an absent field and an empty one, so that a file written
// in field order comes back byte for byte. Bytes fields share the input's
// memory. It must not know graphs or tensors.
package pb
