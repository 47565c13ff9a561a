// Package precision names the arithmetic that compiled code may use for f32
// models, and states what each mode promises.
//
// It must not know graphs, kernels or targets.
package precision
