package schedule_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

var here = schedule.Target{CPU: "x86-64-v4", Model: "AMD EPYC", Threads: 1, Precision: "f32"}

func record(key, text string, us, heuristic float64, kept bool) schedule.Record {
	return schedule.Record{Key: key, Target: here, Space: schedule.SpaceVersion, Schedule: text, Micros: us, Heuristic: heuristic, Runs: 10, Kept: kept}
}

// random makes books that often measure the same things, and then often
// differ in one field only.
func random(r *rand.Rand) *schedule.Book {
	b := &schedule.Book{}
	for range r.IntN(12) {
		rec := record(fmt.Sprint("k", r.IntN(2)), []string{"ob=1", "ob=2"}[r.IntN(2)], float64(1+r.IntN(3)), float64(2+r.IntN(2)), r.IntN(2) == 0)
		rec.Runs += r.IntN(2)
		rec.Model = []string{"", "AMD EPYC"}[r.IntN(2)]
		rec.Lathe = []string{"", "0.1"}[r.IntN(2)]
		rec.Space += r.IntN(2)
		b.Add(rec)
	}
	return b
}

func merged(books ...*schedule.Book) string {
	out := &schedule.Book{}
	for _, b := range books {
		out.Merge(b)
	}
	return string(out.Bytes())
}

// TestMerge holds that merging is commutative, associative and idempotent:
// books of many machines give one, in whatever order they arrive.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	overlaps := 0
	for range 2000 {
		a, b, c := random(r), random(r), random(r)
		ab, bc := &schedule.Book{}, &schedule.Book{}
		ab.Merge(a)
		ab.Merge(b)
		bc.Merge(b)
		bc.Merge(c)
		if ab.Len() < a.Len()+b.Len() {
			overlaps++
		}
		if x, y := merged(a, b), merged(b, a); x != y {
			t.Fatalf("the order decides:\n%s\n%s", x, y)
		}
		if x, y := merged(ab, c), merged(a, bc); x != y {
			t.Fatalf("the grouping decides:\n%s\n%s", x, y)
		}
		if x, y := merged(a, a), string(a.Bytes()); x != y {
			t.Fatalf("merging a book with itself changes it:\n%s\n%s", x, y)
		}
	}
	if overlaps < 500 {
		t.Errorf("only %d of the books overlap: the test shows little", overlaps)
	}
}

// TestBytes holds that a book is read as it was written.
func TestBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		b := random(r)
		back, bad, err := schedule.Read(bytes.NewReader(b.Bytes()))
		if err != nil || len(bad) > 0 {
			t.Fatal(bad, err)
		}
		if !bytes.Equal(back.Bytes(), b.Bytes()) {
			t.Fatalf("%s\n%s", b.Bytes(), back.Bytes())
		}
	}
}

func TestLookup(t *testing.T) {
	other := func(r schedule.Record, change func(*schedule.Record)) schedule.Record {
		change(&r)
		return r
	}
	model := func(r *schedule.Record) { r.Model = "Xeon" }
	precision := func(r *schedule.Record) { r.Precision = "bf16" }
	threads := func(r *schedule.Record) { r.Threads = 2 }
	for _, c := range []struct {
		name string
		book []schedule.Record
		want string // "" for a miss
	}{
		{"an empty book", nil, ""},
		{"one record", []schedule.Record{record("k", "ob=1", 9, 10, true)}, "ob=1"},
		{"another key", []schedule.Record{record("l", "ob=1", 9, 10, true)}, ""},
		{"what was tried and not kept", []schedule.Record{record("k", "ob=1", 9, 10, false)}, ""},
		{"no faster than the heuristic", []schedule.Record{record("k", "ob=1", 10, 10, true)}, ""},
		{"the largest gain, on a day when the machine was slower",
			[]schedule.Record{record("k", "ob=1", 9, 10, true), record("k", "ob=2", 12, 20, true)}, "ob=2"},
		{"the same model of processor first",
			[]schedule.Record{other(record("k", "ob=1", 1, 10, true), model), record("k", "ob=2", 9, 10, true)}, "ob=2"},
		{"another model of the same level", []schedule.Record{other(record("k", "ob=1", 1, 10, true), model)}, "ob=1"},
		{"the same number of threads first",
			[]schedule.Record{other(record("k", "ob=1", 1, 10, true), threads), record("k", "ob=2", 9, 10, true)}, "ob=2"},
		{"the model counts more than the threads",
			[]schedule.Record{other(record("k", "ob=1", 9, 10, true), threads), other(record("k", "ob=2", 1, 10, true), model)}, "ob=1"},
		{"another level", []schedule.Record{other(record("k", "ob=1", 1, 10, true), func(r *schedule.Record) { r.CPU = "x86-64-v3" })}, ""},
		{"a model of another precision around the same kernels",
			[]schedule.Record{other(record("k", "ob=1", 1, 10, true), precision), record("k", "ob=2", 9, 10, true)}, "ob=2"},
		{"a layer of another precision than its model", []schedule.Record{other(record("k", "ob=1", 1, 10, true), precision)}, "ob=1"},
		{"another space", []schedule.Record{other(record("k", "ob=1", 1, 10, true), func(r *schedule.Record) { r.Space++ })}, ""},
	} {
		b := &schedule.Book{}
		for _, r := range c.book {
			b.Add(r)
		}
		got, ok := b.Lookup(here)("k")
		if ok != (c.want != "") || got.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDamage holds that damaged lines are told by number and that the others
// are read.
func TestDamage(t *testing.T) {
	good := string((func() *schedule.Book { b := &schedule.Book{}; b.Add(record("k", "ob=1", 9, 10, true)); return b })().Bytes())
	for name, line := range map[string]string{
		"half a line":         good[:len(good)/2],
		"no JSON":             "hello",
		"another type":        `["key"]`,
		"no key":              strings.Replace(good, `"key":"k"`, `"key":""`, 1),
		"no time":             strings.Replace(good, `"us":9`, `"us":0`, 1),
		"a time below zero":   strings.Replace(good, `"us":9`, `"us":-1`, 1),
		"a time out of range": strings.Replace(good, `"us":9`, `"us":1e999`, 1),
		"no runs":             strings.Replace(good, `"runs":10`, `"runs":0`, 1),
		"an unknown knob":     strings.Replace(good, "ob=1", "zz=1", 1),
		"a knob of text":      strings.Replace(good, "ob=1", "ob=x", 1),
		"a terminal's escape": strings.Replace(good, `"key":"k"`, `"key":"k\u001b[2J"`, 1),
		"a line without end":  strings.Repeat("x", 1<<20),
	} {
		b, bad, err := schedule.Read(strings.NewReader("\n" + line + "\n" + good))
		if err != nil || b.Len() != 1 || len(bad) != 1 || bad[0].Line != 2 {
			t.Errorf("%s: %d records, %v, %v", name, b.Len(), bad, err)
		}
		path := filepath.Join(t.TempDir(), "book")
		if err := os.WriteFile(path, []byte(line+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, _, err := schedule.ReadFile(path); err == nil {
			t.Errorf("%s: a file of nothing else is taken for a book", name)
		}
		if err := b.Save(path); err == nil {
			t.Errorf("%s: a file of nothing else is overwritten", name)
		}
	}
	// Knobs of another version of the space are not ours to judge.
	stale := strings.Replace(strings.Replace(good, "ob=1", "zz=1", 1), `"space":1`, `"space":999`, 1)
	if b, bad, err := schedule.Read(strings.NewReader(stale)); err != nil || len(bad) > 0 || b.Len() != 1 {
		t.Errorf("a record of another version: %v, %v", bad, err)
	}
}

// TestSave holds that saving keeps what others wrote meanwhile, and that what
// a later measurement took back stays taken back.
func TestSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book.jsonl")
	if _, _, err := schedule.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	a, b := &schedule.Book{}, &schedule.Book{}
	a.Keep(record("k", "ob=1", 9, 10, false))
	b.Add(record("l", "ob=1", 9, 10, true))
	for _, x := range []*schedule.Book{a, b} {
		if err := x.Save(path); err != nil {
			t.Fatal(err)
		}
	}
	a.Keep(record("k", "tw=3 ob=2", 12, 20, false))
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	all, _, err := schedule.ReadFile(path)
	if err != nil || all.Len() != 3 {
		t.Fatalf("%d records, %v", all.Len(), err)
	}
	best := all.Best(here)
	if len(best) != 2 || best["k"].Schedule != "ob=2 tw=3" {
		t.Errorf("%v", best)
	}
	a.Drop("k", here)
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	all, _, _ = schedule.ReadFile(path)
	if _, kept := all.Lookup(here)("k"); kept || all.Len() != 3 {
		t.Errorf("what was dropped is back:\n%s", all.Bytes())
	}
}

// TestSaveAtOnce holds that books which are saved at once lose nothing. A lock
// belongs to an opened folder, so that savers of one process stand for processes.
func TestSaveAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book.jsonl")
	const savers, each = 8, 12
	var g sync.WaitGroup
	for i := range savers {
		g.Go(func() {
			for j := range each {
				b := &schedule.Book{}
				b.Add(record(fmt.Sprintf("k%d.%d", i, j), "ob=1", 9, 10, true))
				if err := b.Save(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	all, bad, err := schedule.ReadFile(path)
	if err != nil || len(bad) > 0 || all.Len() != savers*each {
		t.Errorf("%d records of %d, %v, %v", all.Len(), savers*each, bad, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside the book: %v, %v", left, err)
	}
}

// FuzzRead holds that any bytes give a book or damaged lines, and that what was
// read survives being written.
func FuzzRead(f *testing.F) {
	b := &schedule.Book{}
	b.Add(record("k", "form=direct ob=1 prefetch=1024", 9, 10, true))
	f.Add(b.Bytes())
	f.Add([]byte("{}\n{\"key\":1}\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, _, err := schedule.Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		again, bad, err := schedule.Read(bytes.NewReader(b.Bytes()))
		if err != nil || len(bad) > 0 || !bytes.Equal(again.Bytes(), b.Bytes()) {
			t.Fatalf("%v %v\n%s\n%s", err, bad, b.Bytes(), again.Bytes())
		}
	})
}
