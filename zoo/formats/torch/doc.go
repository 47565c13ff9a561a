// Package torch reads and writes the files of torch.save without executing
// pickle: an own reader of the opcodes builds plain values, classes are names,
// and tensor data stays in the file as byte ranges.
//
// It must not know DeepSpeed's or anyone's checkpoint layout. Reading order:
// value.go, dict.go and dtype.go (what a pickle can hold), class.go (which
// classes are known, opaque or refused); then reading: source.go, unpickle.go,
// opcode.go, collect.go, reduce.go and rebuild.go (bytes to values), graph.go
// (no cycles, no explosion), zip.go, legacy.go and file.go (the containers);
// then writing: pickle.go and emit.go (values to opcodes), plan.go (the zip);
// then walk.go and numpy.go (finding one's way in what was read).
package torch
