// Package core is the table of primitive ops: constant folding, automatic
// differentiation, the reference evaluator, fusion and lowering know these and
// no others. An ONNX op is defined by its expansion into them.
//
// It must not know ONNX: no opsets, no optional inputs, no implicit
// broadcasting, no dynamic shapes. Reading order: op.go (what a row says),
// build.go (the builder that infers, folds and shares), then one file per
// family of rows.
package core
