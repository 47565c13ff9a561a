package schedule

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"unicode"
)

// SpaceVersion is the version of what keys and knobs mean. A record of another
// version is a miss.
const SpaceVersion = 1

// Target is what a choice was measured on, beside what its key tells.
type Target struct {
	CPU       string `json:"cpu"`             // the level that code was made for
	Model     string `json:"model,omitempty"` // the name that the processor gives itself
	Threads   int    `json:"threads"`
	Precision string `json:"precision"`
}

// Record is a choice that was measured.
type Record struct {
	Key string `json:"key"`
	Target
	Space    int    `json:"space"`
	Schedule string `json:"schedule"` // the text form of a Choice
	// Micros is the time of all kernels of the site in a run, Heuristic that of
	// the heuristic's choice in the same alternation.
	Micros    float64 `json:"us"`
	Heuristic float64 `json:"heuristic_us"`
	Runs      int     `json:"runs"`
	// Kept is set if the whole program was measured to be faster with it. What
	// is not kept is only known to have been tried.
	Kept  bool   `json:"kept"`
	Lathe string `json:"lathe,omitempty"`
}

// Ratio is the time over the heuristic's: what compares records that were
// measured on different days.
func (r Record) Ratio() float64 { return r.Micros / r.Heuristic }

// Stale reports whether the record is of another version of the space, or of a
// knob that is no more.
func (r Record) Stale() bool { return r.Space != SpaceVersion || Outdated(r.Schedule) }

// check gives what is wrong with a record.
func (r Record) check() error {
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 0) }
	switch {
	case r.Key == "" || r.CPU == "" || r.Precision == "":
		return errors.New("a record without key, cpu or precision")
	case r.Threads < 1 || r.Runs < 1 || r.Space < 1:
		return errors.New("threads, runs and space must be at least 1")
	case !positive(r.Micros) || !positive(r.Heuristic):
		return errors.New("times must be above 0")
	}
	for _, s := range []string{r.Key, r.CPU, r.Model, r.Precision, r.Schedule, r.Lathe} {
		for _, c := range s {
			if !unicode.IsPrint(c) {
				return fmt.Errorf("%q holds control characters", s)
			}
		}
	}
	if r.Stale() {
		return nil // its knobs may be others
	}
	_, err := Parse(r.Schedule)
	return err
}

// id is what two measurements of the same thing share.
type id struct {
	key      string
	target   Target
	space    int
	schedule string
}

func (r Record) id() id { return id{r.Key, r.Target, r.Space, r.Schedule} }

// better orders the measurements of the same thing: more runs count more, and
// what was not confirmed is the careful answer. It is a total order, so that
// merging books in any order gives the same book.
func (r Record) better(o Record) bool {
	order := cmp.Or(
		cmp.Compare(o.Runs, r.Runs),
		boolOrder(r.Kept, o.Kept),
		cmp.Compare(r.Ratio(), o.Ratio()),
		cmp.Compare(r.Micros, o.Micros),
		cmp.Compare(r.Heuristic, o.Heuristic),
		cmp.Compare(r.Lathe, o.Lathe),
	)
	return order < 0
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compare orders the lines of a book.
func compare(a, b Record) int {
	return cmp.Or(
		cmp.Compare(a.Key, b.Key),
		cmp.Compare(a.CPU, b.CPU),
		cmp.Compare(a.Model, b.Model),
		cmp.Compare(a.Threads, b.Threads),
		cmp.Compare(a.Precision, b.Precision),
		cmp.Compare(a.Space, b.Space),
		cmp.Compare(a.Schedule, b.Schedule),
	)
}

// suits tells how well a record suits a target, the smaller the better; false
// if not at all. The precision of the kernels is part of the key; the target's
// is that of the model around them.
func (r Record) suits(t Target) (int, bool) {
	if r.Stale() || r.CPU != t.CPU {
		return 0, false
	}
	n := 0
	for i, differs := range []bool{r.Precision != t.Precision, r.Threads != t.Threads, r.Model != t.Model} {
		if differs {
			n += 1 << i
		}
	}
	return n, true
}
