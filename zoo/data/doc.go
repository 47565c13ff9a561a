// Package data reads and writes tensors and labelled data as files: .npy, .npz,
// ONNX .pb, images with a preprocessing recipe, IDX, CIFAR-10 binaries, CSV and
// lists of class names; and it makes seeded random inputs.
//
// It must not know graphs or commands. Reading order: read.go (which reader a
// file gets), then one file per format.
package data
