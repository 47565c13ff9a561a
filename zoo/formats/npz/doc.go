// Package npz reads and writes NumPy's .npy and .npz files.
//
// It must not know what the arrays mean. Reading order: npy.go, npz.go.
package npz
