// Package conformance runs ONNX test cases (a model and recorded inputs and
// outputs) through anything that can run a model, and says for each whether it
// is right, wrong, or refused and why.
//
// It must not know backends: they come in as a Runner. Reading order: case.go
// (what a case is), compare.go (when outputs are right), run.go (many cases),
// runner.go (the two runners that need no backend), table.go (the summary).
package conformance
