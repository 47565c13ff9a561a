// Package cpuid is what CPUs can do: instruction sets by name, where a CPU
// tells of them, how a C compiler is told, and those of this machine.
//
// It must not know code or artifacts.
package cpuid
