package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// defaultBook stands for the record book that lathe tune writes when no other
// is named.
const defaultBook = "auto"

// schedulesFile is the file of records in an artifact.
const schedulesFile = "schedules.jsonl"

// scheduleBook is a record book and what it is told apart by.
type scheduleBook struct {
	*schedule.Book
	sum string // SHA-256 of its lines
}

func newScheduleBook(b *schedule.Book) *scheduleBook {
	h := sha256.Sum256(b.Bytes())
	return &scheduleBook{b, hex.EncodeToString(h[:])}
}

// bookPath resolves the name of a book.
func (f *factory) bookPath(name string) (string, error) {
	if name != "" && name != defaultBook {
		return name, nil
	}
	dir, err := f.cacheDir()
	return filepath.Join(dir, schedulesFile), err
}

// openBook reads a book, and tells damaged lines once. The default one may not
// be there yet.
func (f *factory) openBook(name string) (*scheduleBook, error) {
	path, err := f.bookPath(name)
	if err != nil {
		return nil, err
	}
	if b := f.books[path]; b != nil {
		return b, nil
	}
	b, bad, err := schedule.ReadFile(path)
	if name == defaultBook && errors.Is(err, fs.ErrNotExist) {
		b, err = &schedule.Book{}, nil
	}
	if err != nil {
		return nil, err
	}
	f.warnDamage(path, bad)
	if f.books == nil {
		f.books = map[string]*scheduleBook{}
	}
	f.books[path] = newScheduleBook(b)
	return f.books[path], nil
}

// warnDamage tells the damaged lines of a book, the first of many.
func (f *factory) warnDamage(path string, bad []schedule.Damage) {
	for i, d := range bad {
		if i == 3 {
			f.Warnf("%s: %d more lines are damaged", path, len(bad)-i)
			return
		}
		f.Warnf("%s: line %d is left out: %v", path, d.Line, d.Err)
	}
}

// records is the book that the flags name; nil for none.
func (c codegenFlags) records(f *factory) (*scheduleBook, error) {
	switch {
	case c.tuned != nil:
		return c.tuned, nil
	case c.schedules == "":
		return nil, nil
	}
	return f.openBook(c.schedules)
}

// scheduleTarget is what records are for.
func scheduleTarget(t backend.Traits, p precision.Mode, threads int) schedule.Target {
	return schedule.Target{CPU: t.CPU, Model: ui.Clean(cpuModel()), Threads: max(threads, 1), Precision: p.String()}
}

// schedulesMade is what became of a record book in a compilation.
type schedulesMade struct {
	SHA256    string         `json:"book_sha256"`
	Recorded  int            `json:"recorded_sites"`
	Heuristic int            `json:"heuristic_sites"`
	used      *schedule.Book // the records that were taken
}

// add counts the sites of a program, and notes the records that made them.
func (s *schedulesMade) add(p *program.Program, ranked map[string][]schedule.Record) {
	for _, x := range p.Sites {
		made := slices.IndexFunc(ranked[x.Key], func(r schedule.Record) bool {
			c, err := schedule.Parse(r.Schedule)
			return err == nil && x.Chosen.Honours(c)
		})
		if x.Recorded && made >= 0 {
			s.Recorded++
			s.used.Add(ranked[x.Key][made])
		} else {
			s.Heuristic++
		}
	}
}
