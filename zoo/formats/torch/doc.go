// Package torch reads and writes the files of torch.save without executing
// pickle: an own reader of the opcodes builds plain values, classes are names,
// and tensor data stays in the file as byte ranges.
//
// It must not know DeepSpeed's or anyone's checkpoint layout. Reading order:
// value.go and dict.go (what a pickle can hold), class.go (which classes are
// known, opaque or refused), unpickle.go and reduce.go (opcodes to values),
// pickle.go (values to opcodes), zip.go (the container), file.go (opening),
// legacy.go (the format before torch 1.6), plan.go (writing), walk.go (tensors
// by path).
package torch
