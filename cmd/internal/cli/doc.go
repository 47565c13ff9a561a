// Package cli holds the commands, one file each: an options struct, a
// constructor with its flags, and a run method. Everything meets here, and
// only here.
//
// Reading order: root.go (the table of commands, flags they share), errors.go
// (the only place where an error becomes a sentence and an exit code), then
// any command.
package cli
