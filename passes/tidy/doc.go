// Package tidy makes an ONNX graph smaller without changing what it
// computes: small rules, applied until none finds anything.
//
// It must not know files or backends. Reading order: tidy.go (the table of
// rules and the loop around it), edit.go (how a graph is changed), then one
// file per family of rules. What the rules leave behind (nodes that nothing
// reads) the loop sweeps away.
package tidy
