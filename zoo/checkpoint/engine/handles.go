package engine

import (
	"fmt"
	"io"
	"sync"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// maxOpen bounds the number of source files that are open at once.
const maxOpen = 256

// handles keeps source files open.
type handles struct {
	store weights.Store
	mu    sync.Mutex
	files map[string]*handle
	clock int64
}

type handle struct {
	weights.File
	users int
	used  int64
}

func newHandles(s weights.Store) *handles {
	return &handles{store: s, files: map[string]*handle{}}
}

func (h *handles) acquire(name string) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	if f := h.files[name]; f != nil {
		f.users++
		f.used = h.clock
		return f, nil
	}
	if len(h.files) >= maxOpen {
		h.evict()
	}
	f, err := h.store.Open(name)
	if err != nil {
		return nil, err
	}
	x := &handle{f, 1, h.clock}
	h.files[name] = x
	return x, nil
}

// evict closes the file that was not used for longest.
func (h *handles) evict() {
	oldest := ""
	for name, f := range h.files {
		if f.users == 0 && (oldest == "" || f.used < h.files[oldest].used) {
			oldest = name
		}
	}
	if oldest != "" {
		h.files[oldest].Close()
		delete(h.files, oldest)
	}
}

func (h *handles) release(f *handle) {
	h.mu.Lock()
	f.users--
	h.mu.Unlock()
}

func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.files {
		f.Close()
	}
	h.files = map[string]*handle{}
}

// readFull reads exactly len(b) bytes.
func readFull(r io.ReaderAt, name string, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: read %d bytes at %d: %w", name, len(b), off, err)
}
