// Package artifact is what the artifacts of all backends have in common: the
// manifest, the weights file, and the check of tensors against a signature.
//
// It must not know kernels' code or how any backend runs it.
package artifact
