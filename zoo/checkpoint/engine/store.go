package engine

import (
	"os"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// folder is a folder of a store seen as a store.
type folder struct {
	s   weights.Store
	dir string
}

// Folder gives a folder of a store as a store; it need not exist yet.
func Folder(s weights.Store, dir string) weights.Store { return &folder{s, dir} }

func (f *folder) name(n string) (string, error) {
	if err := weights.CheckName(n); err != nil {
		return "", err
	}
	return weights.Join(f.dir, n), nil
}

func (f *folder) Open(n string) (weights.File, error) {
	n, err := f.name(n)
	if err != nil {
		return nil, err
	}
	return f.s.Open(n)
}

func (f *folder) Create(n string, size int64) (weights.Writer, error) {
	n, err := f.name(n)
	if err != nil {
		return nil, err
	}
	return f.s.Create(n, size)
}

// Reopen opens a file for writing without emptying it, where the store below
// is a folder of the file system.
func (f *folder) Reopen(n string) (weights.Writer, error) {
	n, err := f.name(n)
	if err != nil {
		return nil, err
	}
	local, ok := f.s.(interface{ Path(string) string })
	if !ok {
		return nil, os.ErrInvalid
	}
	return os.OpenFile(local.Path(n), os.O_RDWR, 0)
}

func (f *folder) Stat(n string) (weights.Info, error) {
	n, err := f.name(n)
	if err != nil {
		return weights.Info{}, err
	}
	i, err := f.s.Stat(n)
	i.Name = f.cut(i.Name)
	return i, err
}

func (f *folder) List(dir string) ([]weights.Info, error) {
	dir, err := f.name(dir)
	if err != nil {
		return nil, err
	}
	list, err := f.s.List(dir)
	for i := range list {
		list[i].Name = f.cut(list[i].Name)
	}
	return list, err
}

func (f *folder) cut(n string) string {
	if f.dir != "." && len(n) > len(f.dir) {
		return n[len(f.dir)+1:]
	}
	return n
}

func (f *folder) Rename(a, b string) error {
	a, err := f.name(a)
	if err != nil {
		return err
	}
	if b, err = f.name(b); err != nil {
		return err
	}
	return f.s.Rename(a, b)
}

func (f *folder) Remove(n string) error {
	n, err := f.name(n)
	if err != nil {
		return err
	}
	return f.s.Remove(n)
}
