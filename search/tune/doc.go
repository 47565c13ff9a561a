// Package tune searches the schedules of a program's kernels by measuring them.
//
// It must not know backends, models or files: who runs it says how a program is
// lowered, built and timed.
package tune
