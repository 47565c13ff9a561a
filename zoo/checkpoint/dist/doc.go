// Package dist reads and writes PyTorch distributed checkpoints (DCP) as atoms,
// and reads Megatron-Core's torch_dist form of them.
//
// It must not know other formats. Reading order: open.go, write.go.
package dist
