package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// File is an open file that is read by ranges. Several goroutines may read it.
type File interface {
	io.ReaderAt
	io.Closer
	// Size is the length of the file when it was opened.
	Size() int64
}

// Writer is a file being written by ranges, from several goroutines. It is
// complete only after Close returned nil.
type Writer interface {
	io.WriterAt
	// Close ends the writing; with Sync before it the bytes are durable.
	Close() error
	// Sync makes what was written so far durable.
	Sync() error
}

// Info tells about one entry of a folder.
type Info struct {
	Name string // slash-separated, relative to the store
	Size int64  // 0 for folders
	Dir  bool
}

// Store is a tree of files under slash-separated relative names. It is all that
// reading and writing checkpoints needs, so that an object store can implement
// it: ranges are read and written, names are listed by folder, and a finished
// file or folder is put in place by one rename.
//
// Names that are absolute, empty or leave the store ("..") are refused. A name
// that does not exist gives an error that is fs.ErrNotExist.
type Store interface {
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Create makes a file of the given size, and the folders above it. An
	// existing file of that name is replaced by an empty one.
	Create(name string, size int64) (Writer, error)
	// Stat tells about a file or folder.
	Stat(name string) (Info, error)
	// List tells the entries of a folder, sorted by name; "." is the root.
	List(dir string) ([]Info, error)
	// Rename moves a file or folder; it fails when the new name exists as a
	// folder that is not empty. Folders above the new name are made.
	Rename(oldName, newName string) error
	// Remove deletes a file or a folder with all that is in it. Nothing there
	// is no error.
	Remove(name string) error
}

// CheckName refuses names that are not clean relative slash paths.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a file name is empty")
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("file name %q holds a zero byte", name)
	case !fs.ValidPath(name):
		return fmt.Errorf("file name %q leaves its folder or is not a clean relative path", name)
	}
	return nil
}

// Join joins the parts of a name.
func Join(parts ...string) string { return path.Join(parts...) }

// Exists reports whether a name exists in the store.
func Exists(s Store, name string) (bool, error) {
	_, err := s.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ReadFull reads exactly len(b) bytes at off. An end of file right after them is
// no error: io.ReaderAt lets a reader tell of it at once.
func ReadFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadFile reads a whole small file; more than limit bytes is an error.
func ReadFile(s Store, name string, limit int64) ([]byte, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes are more than the %d that such a file may have", name, f.Size(), limit)
	}
	b := make([]byte, f.Size())
	if err := ReadFull(f, b, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// WriteFile writes a whole small file.
func WriteFile(s Store, name string, data []byte) error {
	w, err := s.Create(name, int64(len(data)))
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(data, 0); err != nil {
		w.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return w.Close()
}

// Walk calls fn for every file below dir in sorted order, depth first.
func Walk(s Store, dir string, fn func(Info) error) error {
	entries, err := s.List(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dir {
			err = Walk(s, e.Name, fn)
		} else {
			err = fn(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
