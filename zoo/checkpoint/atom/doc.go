// Package atom is the logical form of a checkpoint, whatever its layout on
// disk: parameters and their optimizer states as whole tensors, each with the
// places in files where its elements lie.
//
// It must not know the layouts (DeepSpeed, DCP, …) that compile into it.
// Reading order: tensor.go (blobs, pieces, tensors), checkpoint.go (parameters
// and what is carried beside them), book.go (torch tensors to pieces).
package atom
