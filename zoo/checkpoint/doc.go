// Package checkpoint converts distributed training checkpoints between
// parallel layouts and formats: sources compile into atoms (logical tensors
// with the places of their elements), targets plan files from atoms, the engine
// copies.
//
// It must not know commands or terminals. Reading order: open.go (what a path
// is), convert.go (targets, the partial output and its rename), compare.go
// (verify and diff), select.go (rename, subset, drop, cast), lora.go.
package checkpoint
