// Package fault is the contract by which every package of lathe says whose
// fault an error is: a class that decides the exit code, the place in the
// model, and the next step to take.
//
// It must not know graphs, files, commands or exit codes: cmd maps a Kind to an
// exit code in one place, and prints.
package fault
