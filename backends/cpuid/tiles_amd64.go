//go:build !linux

package cpuid

// tilesAllowed is false where it is not known how to ask for tile registers.
func tilesAllowed() bool { return false }
