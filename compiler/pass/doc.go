// Package pass is the contract of a pass over a graph and the runner that
// gives every pass the same services: verification before and after, timing,
// node counts, dumps, a stop after so many edits, and a named error where a
// pass panics.
//
// It must not know any pass: the table of passes hands them in.
package pass
