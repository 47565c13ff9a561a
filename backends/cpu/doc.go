// Package cpu builds artifacts for CPUs: C sources, a C compiler, a shared
// library with its weights beside it; and it opens them.
//
// It must not know graphs or ops.
package cpu
