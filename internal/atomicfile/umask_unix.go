//go:build unix

package atomicfile

import (
	"os"
	"sync"
	"syscall"
)

// umask reads the process's mask once: the only way to read it is to set it.
var umask = sync.OnceValue(func() os.FileMode {
	m := syscall.Umask(0)
	syscall.Umask(m)
	return os.FileMode(m)
})
