// Package gguf reads the header of GGUF files: metadata and where tensors lie.
//
// It must not know models: names and quantised blocks are given as they are.
package gguf
