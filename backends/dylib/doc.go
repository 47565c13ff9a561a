// Package dylib loads shared libraries without cgo and calls their functions:
// lathe's own artifacts and peers such as ONNX Runtime.
//
// It must not know graphs or what a library computes. It is the only package
// that imports purego. A build with the tag nodylib, or for a system that
// purego cannot load libraries on, compiles and says so when asked to load.
package dylib
