// Package gguf reads the header of GGUF files: metadata and where tensors lie.
//
// It must not know models: names and quantised blocks are given as they are.
// Reading order: types.go (element types of ggml), file.go (the header).
package gguf
