package weightfile

import "github.com/lathe-ml/lathe/zoo/formats/npz"

// npz enters the arrays of an .npz or .npy file.
func (r *reader) npz(name string) error {
	f, err := npz.OpenIn(r.c.Store, name)
	if err != nil {
		return err
	}
	for _, t := range f.Tensors {
		if t.Name == "" {
			t.Name = r.c.Name
		}
		r.plain(t)
	}
	return nil
}
