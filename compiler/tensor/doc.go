// Package tensor holds element types, shapes and host tensors: the ground floor
// that every other package of lathe stands on.
//
// It must not know graphs, ops or files. Reading order: dtype.go (element
// types, numbered as in ONNX TensorProto.DataType), tensor.go (row-major host
// tensors over raw little-endian bytes), convert.go (exact conversion between
// element types).
package tensor
