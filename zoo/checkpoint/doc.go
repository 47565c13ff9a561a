// Package checkpoint converts distributed training checkpoints between
// parallel layouts and formats: sources compile into atoms (logical tensors
// with the places of their elements), targets plan files from atoms, the engine
// copies.
//
// It must not know commands or terminals. Reading order: open.go and flat.go
// (what a path is), target.go and convert.go (the work), place.go (the partial
// output and its rename), compare.go (verify and diff), inspect.go, select.go
// (rename, subset, drop), lora.go, onnx.go.
package checkpoint
