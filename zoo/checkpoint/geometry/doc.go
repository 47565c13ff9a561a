// Package geometry says where the elements of a logical tensor lie: boxes of
// local arrays placed in a logical array, walked as contiguous runs.
//
// It must not know files, formats or names. Reading order: view.go (boxes and
// runs), split.go (the shards of tensor parallelism: rows, columns, fused
// sub-parameters, replicated heads, vocabulary padding), zero.go (flat
// partitions of ZeRO).
package geometry
