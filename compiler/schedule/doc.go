// Package schedule holds the decisions that kernel generators leave open, as
// data: the form of a kernel, its register tile, the order of its loops.
//
// It must not know graphs, kernels or targets.
package schedule
