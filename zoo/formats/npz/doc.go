// Package npz reads and writes NumPy's .npy and .npz files.
//
// It must not know what the arrays mean. Reading order: npy.go (the header of
// one array), npz.go (the zip of several), plan.go (writing).
package npz
