// Package ort runs models in ONNX Runtime, loaded at run time through its C
// API: the peer that lathe's results and times are compared with.
//
// It must not know lathe's graphs: it gives model bytes and tensors, and gets
// tensors. Reading order: find.go (where the library is looked for), api.go
// (the function table), session.go, value.go (tensors in and out).
package ort
