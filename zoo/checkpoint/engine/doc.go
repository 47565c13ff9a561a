// Package engine writes planned files from the pieces of atoms: each output
// byte once, each input byte once where the layouts allow it, in fixed memory,
// on several goroutines, with a journal so that a killed run goes on.
//
// It must not know checkpoint formats: it sees slots and spans. Reading order:
// plan.go (what is to be written), cursor.go (element ranges to reads),
// fill.go (reads to bytes of a slot), cast.go (element types, means), sums.go
// (checksums of the source), handles.go (open files), journal.go (what is
// done), run.go (the work), check.go (copies that must be equal).
package engine
