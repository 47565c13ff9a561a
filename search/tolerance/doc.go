// Package tolerance picks the precision of each layer of a model: the fastest
// with which the outputs stay within a budget of error.
//
// It must not know graphs, targets, or how anything is measured.
package tolerance
