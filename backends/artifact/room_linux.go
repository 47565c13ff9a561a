package artifact

import "golang.org/x/sys/unix"

// machineMemory is the memory of this machine in bytes.
func machineMemory() uint64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return uint64(s.Totalram) * uint64(s.Unit)
}
