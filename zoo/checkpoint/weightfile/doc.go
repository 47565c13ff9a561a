// Package weightfile reads and writes checkpoints that hold weights by name and
// no layout: one .pt, .bin, .safetensors or .npz file, or the shards of a
// Hugging Face checkpoint with their index.
//
// It must not know distributed layouts. Reading order: open.go, write.go.
package weightfile
