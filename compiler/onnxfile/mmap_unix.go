//go:build unix

package onnxfile

import (
	"os"
	"syscall"
)

// mapping is a file's content in memory.
type mapping struct{ data []byte }

// mapFile maps a regular file of the given size for reading.
func mapFile(f *os.File, size int64) (mapping, error) {
	if size == 0 {
		return mapping{}, nil
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return mapping{}, os.NewSyscallError("mmap", err)
	}
	return mapping{b}, nil
}

func (m mapping) unmap() error {
	if m.data == nil {
		return nil
	}
	return syscall.Munmap(m.data)
}
