// Package schedule holds the decisions that kernel generators leave open, as
// data: the form of a kernel, its register tile, how far ahead it fetches.
//
// It must not know graphs, kernels or targets.
package schedule
