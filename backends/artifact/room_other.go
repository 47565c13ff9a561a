//go:build !linux

package artifact

// machineMemory is 0 where it is not known.
func machineMemory() uint64 { return 0 }
