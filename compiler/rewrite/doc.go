// Package rewrite edits graphs by labelled patches: which node goes, what
// stands in its place, and why. A patch is applied whole or not at all, and
// each applied one leaves an Edit in the log.
//
// It must not know what ops mean: rules bring that knowledge. Reading order:
// patch.go (what a rule proposes), editor.go (how it is applied), sweep.go
// (rules over a whole graph).
package rewrite
