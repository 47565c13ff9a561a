// Package safetensors reads and writes .safetensors files and the index of
// sharded Hugging Face checkpoints. Only the header is held in memory.
//
// It must not know what the tensors mean. Reading order: file.go (header),
// plan.go (writing), index.go (model.safetensors.index.json, shared with
// sharded .bin checkpoints).
package safetensors
