package cpuid

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// tilesAllowed reports whether the kernel gives programs tile registers when
// they ask for them: Linux since 5.16.
func tilesAllowed() bool {
	const supported, tileData = 0x1021, 1 << 18 // ARCH_GET_XCOMP_SUPP
	var mask uint64
	_, _, e := unix.Syscall(unix.SYS_ARCH_PRCTL, supported, uintptr(unsafe.Pointer(&mask)), 0)
	return e == 0 && mask&tileData != 0
}
