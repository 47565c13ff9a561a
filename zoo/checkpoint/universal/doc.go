// Package universal reads and writes DeepSpeed's universal checkpoints: a
// folder per parameter with one file per state, in the dict dialect (shape and
// tensor-parallel metadata) or the flat one (ZeRO-3).
//
// It must not know native layouts. Reading order: write.go, open.go.
package universal
