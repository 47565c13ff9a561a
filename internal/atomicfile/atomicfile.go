package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// pending holds the temporaries that are not renamed yet.
var pending struct {
	sync.Mutex
	paths map[string]bool
}

func register(path string) {
	pending.Lock()
	defer pending.Unlock()
	if pending.paths == nil {
		pending.paths = map[string]bool{}
	}
	pending.paths[path] = true
}

func forget(path string) {
	pending.Lock()
	defer pending.Unlock()
	delete(pending.paths, path)
}

// Cleanup removes every unfinished temporary of this process. It is for the
// way out after an interrupt, when writers may still be running.
func Cleanup() {
	pending.Lock()
	defer pending.Unlock()
	for p := range pending.paths {
		os.RemoveAll(p)
	}
	pending.paths = nil
}

// Write replaces the file at path by what fill writes. On any error the old
// file stays and the temporary is removed.
func Write(path string, fill func(w io.Writer) error) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+".tmp-*")
	if err != nil {
		return cannotWrite(path, err)
	}
	register(f.Name())
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
		forget(f.Name())
	}()
	if err := fill(f); err != nil {
		// A full disk is the output's fault and not that of who fills it.
		var pe *fs.PathError
		if errors.As(err, &pe) && pe.Path == f.Name() {
			return cannotWrite(path, err)
		}
		return err
	}
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		return cannotWrite(path, err)
	}
	if err := f.Sync(); err != nil {
		return cannotWrite(path, err)
	}
	if err := f.Close(); err != nil {
		return cannotWrite(path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return cannotWrite(path, err)
	}
	syncDir(dir)
	return nil
}

// Writable says why no file can be written at path; nil if one can. It is for
// who works long before writing.
func Writable(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return cannotWrite(path, err)
	}
	f.Close()
	os.Remove(f.Name())
	return nil
}

// WriteBytes replaces the file at path by data.
func WriteBytes(path string, data []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteDir fills a temporary sibling folder and renames it to path. An existing
// folder is replaced only if replace is set (it is moved aside first and
// removed last, so that a failure in between leaves it to be found).
func WriteDir(path string, replace bool, fill func(tmp string) error) (err error) {
	path = filepath.Clean(path)
	if _, err := os.Lstat(path); err == nil && !replace {
		return &ExistsError{Path: path}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cannotWrite(path, err)
	}
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return cannotWrite(path, err)
	}
	register(tmp)
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
		forget(tmp)
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return cannotWrite(path, err)
	}
	if err := os.Chmod(tmp, 0o777&^umask()); err != nil {
		return cannotWrite(path, err)
	}
	if err := swap(tmp, path); err != nil {
		return cannotWrite(path, err)
	}
	syncDir(dir)
	return nil
}

// swap renames tmp to path, moving what is there out of the way.
func swap(tmp, path string) error {
	err := os.Rename(tmp, path)
	if err == nil {
		return nil
	}
	if _, statErr := os.Lstat(path); statErr != nil {
		return err
	}
	old := tmp + ".old"
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	return os.RemoveAll(old)
}

// syncTree syncs each regular file below dir, so that the rename cannot reach
// the disk before the content.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}

// syncDir makes a rename durable where the system allows it; file systems that
// cannot sync a folder say so by an error that changes nothing for us.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// ExistsError tells that the output exists and may not be replaced.
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string { return e.Path + " exists already" }

// WriteError tells that an output could not be written.
type WriteError struct {
	Path string
	Err  error
}

func (e *WriteError) Error() string {
	cause := e.Err
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(cause, &pe):
		cause = pe.Err
	case errors.As(cause, &le):
		cause = le.Err
	}
	return fmt.Sprintf("cannot write %s: %v", e.Path, cause)
}

// Unwrap gives the system's error.
func (e *WriteError) Unwrap() error { return e.Err }

func cannotWrite(path string, err error) error { return &WriteError{Path: path, Err: err} }
