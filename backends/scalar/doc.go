// Package scalar holds what the scalar functions of the kernel IR mean, by
// name: the one table that the Go executors read.
//
// It must not know kernels, programs or core ops. Floats are float64 values,
// rounded to their type after each function; integers are int64 values,
// wrapped to their width (uint64 as its bits).
package scalar
