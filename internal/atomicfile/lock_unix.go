//go:build unix

package atomicfile

import (
	"os"
	"path/filepath"
	"syscall"
)

// Exclusive runs f while no other process that asks for the same does, for files
// in the folder of path: who reads a file, changes it and writes it must not meet
// another in between. Nothing is left in the folder. Where the file system knows
// no locks, f runs without.
func Exclusive(path string, f func() error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return f() // which says what is wrong with the folder
	}
	defer dir.Close()
	for {
		if err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	return f() // closing the folder gives the lock back
}
