package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
)

// OS is a Store on a folder of the local file system. Symbolic links are
// followed for reading, since the cache of Hugging Face's hub keeps its files
// behind links to a neighbouring folder. For writing they are not: nothing
// outside of the folder is ever made, changed or deleted (os.Root).
type OS struct {
	root *os.Root
	dir  string
}

// OpenOS opens an existing folder as a store.
func OpenOS(dir string) (*OS, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &OS{root: r, dir: dir}, nil
}

// CreateOS opens a folder as a store and makes it first where it is missing.
func CreateOS(dir string) (*OS, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	return OpenOS(dir)
}

// Close releases the folder.
func (s *OS) Close() error { return s.root.Close() }

// Path is the place of a name in the local file system.
func (s *OS) Path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// osFile is an open file and the size that it had when opened.
type osFile struct {
	*os.File
	size int64
}

func (f *osFile) Size() int64 { return f.size }

// Open opens a file for reading.
func (s *OS) Open(name string) (File, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	f, err := os.Open(s.Path(name))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{f, st.Size()}, nil
}

// Create makes a file of the given size.
func (s *OS) Create(name string, size int64) (Writer, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := s.makeParents(name); err != nil {
		return nil, err
	}
	f, err := s.root.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	// Setting the size first keeps the parts that are zero as holes.
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *OS) makeParents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return s.root.MkdirAll(filepath.FromSlash(dir), 0o777)
}

// Stat tells about a file or folder.
func (s *OS) Stat(name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(s.Path(name))
	if err != nil {
		return Info{}, err
	}
	return info(name, st), nil
}

func info(name string, st fs.FileInfo) Info {
	i := Info{Name: name, Dir: st.IsDir()}
	if !i.Dir {
		i.Size = st.Size()
	}
	return i
}

// List tells the entries of a folder, sorted by name.
func (s *OS) List(dir string) ([]Info, error) {
	if err := CheckName(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.Path(dir))
	if err != nil {
		return nil, err
	}
	out := make([]Info, 0, len(entries))
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		st, err := os.Stat(s.Path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link to nothing
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info(name, st))
	}
	return out, nil
}

// Rename moves a file or folder inside the store.
func (s *OS) Rename(oldName, newName string) error {
	if err := errors.Join(CheckName(oldName), CheckName(newName)); err != nil {
		return err
	}
	if err := s.makeParents(newName); err != nil {
		return err
	}
	if err := s.root.Rename(filepath.FromSlash(oldName), filepath.FromSlash(newName)); err != nil {
		return err
	}
	return s.syncDir(path.Dir(newName))
}

// syncDir makes a rename durable.
func (s *OS) syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there
	}
	d, err := s.root.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Remove deletes a file or a folder tree.
func (s *OS) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if name == "." {
		return errors.New("the root of a store cannot be removed")
	}
	return s.root.RemoveAll(filepath.FromSlash(name))
}
