// Package backendtest runs the same cases on any backend: recorded ONNX cases
// for the verify command, and random core graphs for tests.
//
// It may know everything from core graphs down, since it compares what each
// level computes; it must not know commands.
package backendtest
