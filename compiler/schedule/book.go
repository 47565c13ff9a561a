package schedule

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// Book is a set of records, at most one of each measured thing. The zero value
// is an empty book.
type Book struct {
	records map[id]Record
}

// Damage is a line of a book that could not be read.
type Damage struct {
	Line int
	Err  error
}

// longestLine is more than any record has.
const longestLine = 1 << 16

// Read reads a book of JSON lines. Lines that are damaged are left out and
// told: the others are measurements of their own.
func Read(r io.Reader) (*Book, []Damage, error) {
	b := &Book{}
	var bad []Damage
	in := bufio.NewReaderSize(r, longestLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		if long {
			bad = append(bad, Damage{n, errors.New("the line is too long for a record")})
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			if rec, readErr := readRecord(line); readErr != nil {
				bad = append(bad, Damage{n, readErr})
			} else {
				b.Add(rec)
			}
		}
		if err != nil {
			return b, bad, nil
		}
	}
}

func readRecord(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("no record: %w", err)
	}
	return r, r.check()
}

// ReadFile reads the book at path. A file of other content is refused, so that
// it is neither taken for an empty book nor overwritten by one.
func ReadFile(path string) (*Book, []Damage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fault.New(fault.BadModel, "cannot read the record book: %w", err).Hint("lathe tune writes one")
	}
	defer f.Close()
	b, bad, err := Read(f)
	if err != nil {
		return nil, nil, fault.New(fault.BadModel, "cannot read the record book: %w", err).InFile(path)
	}
	if len(bad) > 0 && b.Len() == 0 {
		return nil, nil, fault.New(fault.BadModel, "this is no record book: line %d: %w", bad[0].Line, bad[0].Err).InFile(path)
	}
	return b, bad, nil
}

// Add puts a record in, unless the book has a better measurement of the same.
func (b *Book) Add(r Record) {
	if c, err := Parse(r.Schedule); err == nil && !r.Stale() {
		r.Schedule = c.String()
	}
	if old, ok := b.records[r.id()]; ok && !r.better(old) {
		return
	}
	b.put(r)
}

func (b *Book) put(r Record) {
	if b.records == nil {
		b.records = map[id]Record{}
	}
	b.records[r.id()] = r
}

// Merge adds all records of another book.
func (b *Book) Merge(o *Book) {
	for _, r := range o.records {
		b.Add(r)
	}
}

// Keep replaces what is kept for a key on a target by the record's choice. The
// others were compared with it in as many runs, and lost.
func (b *Book) Keep(r Record) {
	for k, old := range b.records {
		if old.Kept && k.key == r.Key && k.target == r.Target && k.space == r.Space {
			old.Kept = false
			old.Runs++
			b.records[k] = old
		}
	}
	r.Kept = true
	if c, err := Parse(r.Schedule); err == nil {
		r.Schedule = c.String()
	}
	if old, ok := b.records[r.id()]; ok {
		r.Runs += old.Runs
	}
	b.put(r)
}

// Drop takes back what is kept for a key on a target.
func (b *Book) Drop(key string, t Target) {
	for k, old := range b.records {
		if old.Kept && k.key == key && k.target == t {
			old.Kept = false
			old.Runs++
			b.records[k] = old
		}
	}
}

// Len is the number of records.
func (b *Book) Len() int { return len(b.records) }

// Records lists the records, in the order of their lines.
func (b *Book) Records() []Record {
	out := make([]Record, 0, len(b.records))
	for _, r := range b.records {
		out = append(out, r)
	}
	slices.SortFunc(out, compare)
	return out
}

// Select gives the book of the records that are wanted.
func (b *Book) Select(want func(Record) bool) *Book {
	out := &Book{}
	for _, r := range b.records {
		if want(r) {
			out.put(r)
		}
	}
	return out
}

// Ranked lists for every key the records that a compilation for the target may
// use, the best first: of the kept ones those of the same model of processor come
// before those of the same level, those of the same threads and precision before
// others, and then the one that gained most.
func (b *Book) Ranked(t Target) map[string][]Record {
	all := map[string][]Record{}
	for _, r := range b.Records() {
		if _, ok := r.suits(t); ok && r.Kept && r.Ratio() < 1 {
			all[r.Key] = append(all[r.Key], r)
		}
	}
	for _, list := range all {
		slices.SortStableFunc(list, func(a, b Record) int {
			rankA, _ := a.suits(t)
			rankB, _ := b.suits(t)
			return cmp.Or(cmp.Compare(rankA, rankB), cmp.Compare(a.Ratio(), b.Ratio()), cmp.Compare(a.Micros, b.Micros))
		})
	}
	return all
}

// Best gives for every key the first of Ranked.
func (b *Book) Best(t Target) map[string]Record {
	best := map[string]Record{}
	for key, list := range b.Ranked(t) {
		best[key] = list[0]
	}
	return best
}

// Choices lists for every key what Ranked's records choose.
func (b *Book) Choices(t Target) func(key string) []Choice {
	choices := map[string][]Choice{}
	for key, list := range b.Ranked(t) {
		for _, r := range list {
			if c, err := Parse(r.Schedule); err == nil {
				choices[key] = append(choices[key], c)
			}
		}
	}
	return func(key string) []Choice { return choices[key] }
}

// Lookup gives the first of Choices.
func (b *Book) Lookup(t Target) Lookup {
	all := b.Choices(t)
	return func(key string) (Choice, bool) {
		if list := all(key); len(list) > 0 {
			return list[0], true
		}
		return Choice{}, false
	}
}

// Bytes is the book as JSON lines, the same bytes for the same records.
func (b *Book) Bytes() []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	for _, r := range b.Records() {
		if err := e.Encode(r); err != nil {
			panic("BUG: schedule: a record that has no JSON: " + err.Error())
		}
	}
	return out.Bytes()
}

// Save adds the book's records to those in the file at path: nothing that
// others wrote meanwhile is lost. The file is replaced as a whole.
func (b *Book) Save(path string) error {
	return atomicfile.Exclusive(path, func() error {
		all := &Book{}
		old, _, err := ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			all.Merge(old)
		}
		all.Merge(b)
		return atomicfile.WriteBytes(path, all.Bytes())
	})
}
