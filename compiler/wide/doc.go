// Package wide makes float64 twins of core graphs and measures how far values
// that were computed in less precision are from theirs.
//
// It must not know targets, kernels or how a graph is run.
package wide
