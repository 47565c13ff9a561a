// Package randomize replaces a model's weights by seeded random ones of the
// usual scale, so that a model can be shared, compared and timed without its
// weights.
//
// It must not know files or backends. It leaves constants that say how
// something is computed (shapes, axes, scales of a quantization) as they are.
package randomize
