// Package dcp reads and writes PyTorch distributed checkpoints (a .metadata
// pickle and __R_N.distcp files), the form that Megatron-Core's torch_dist
// shares.
//
// It must not know parallel layouts: a tensor is a set of boxes of bytes.
// Reading order: model.go (tensors, chunks), read.go, write.go.
package dcp
