package weights

import (
	"fmt"
	"io"
)

// OpenAs reads the header of a file with a format's reader; name is the file
// that the tensors refer to and that errors name.
func OpenAs[F any](r io.ReaderAt, size int64, name string, read func(io.ReaderAt, int64, string) (F, error)) (F, error) {
	f, err := read(r, size, name)
	if err != nil && name != "" {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return f, err
}

// OpenIn is OpenAs for a file of a store.
func OpenIn[F any](s Store, name string, read func(io.ReaderAt, int64, string) (F, error)) (F, error) {
	f, err := s.Open(name)
	if err != nil {
		var none F
		return none, err
	}
	defer f.Close()
	return OpenAs(f, f.Size(), name, read)
}
