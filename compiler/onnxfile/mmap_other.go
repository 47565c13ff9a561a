//go:build !unix

package onnxfile

import (
	"io"
	"os"
)

// mapping is a file's content in memory.
type mapping struct{ data []byte }

// mapFile reads the file where the system cannot map it.
func mapFile(f *os.File, size int64) (mapping, error) {
	b := make([]byte, size)
	_, err := io.ReadFull(f, b)
	return mapping{b}, err
}

func (m mapping) unmap() error { return nil }
