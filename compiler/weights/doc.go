// Package weights is the contract between weight files and everything that
// reads or writes them: where files live (Store), what a tensor inside a file
// is (Tensor), and how a file is laid out before its bytes exist (Plan).
//
// It must not know any file format, graph or parallel layout. Reading order:
// store.go (files behind one small interface, so that an object store can take
// the place of a folder), os.go (a folder), tensor.go (a lazily read tensor),
// plan.go (write each byte once, from several goroutines), sum.go (CRC-32 of
// ranges that were written out of order).
package weights
