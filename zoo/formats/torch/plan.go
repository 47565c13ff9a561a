package torch

import (
	"errors"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// WriteOptions says how a file is written.
type WriteOptions struct {
	// Prefix is the folder inside the zip; empty means "archive". torch.save
	// uses the stem of the file name.
	Prefix string
	// ByteOrder adds the record that torch writes since 2.1.
	ByteOrder bool
}

// Layout is a planned file: one slot per storage that the root refers to, in
// the order of first use.
type Layout struct {
	weights.Plan
	Storages []*Storage
}

// NewPlan pickles the values (protocol 2) and lays out the file. Storages get
// new keys in order; their bytes are written through Plan.Begin or, when each
// has Data, by Write.
func NewPlan(root Value, opt WriteOptions) (*Layout, error) {
	return nil, errors.New("a file cannot be planned without values")
}

// Slot is the index of a storage's slot; -1 if the root does not refer to it.
func (l *Layout) Slot(s *Storage) int {
	for i, x := range l.Storages {
		if x == s {
			return i
		}
	}
	return -1
}

// Save writes values whose storages all have Data as a file of a store.
func Save(s weights.Store, name string, root Value, opt WriteOptions) error {
	return errors.New("a file cannot be planned without values")
}
