package tune

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

// warm times the sites, and begins with what the book has kept if the program
// is still faster with it, else with what is faster at its own site.
func (t *tuner) warm(ctx context.Context) error {
	s, err := t.measure(ctx, 1, t.base)
	if err != nil {
		return err
	}
	t.clockIn(s[0])
	best := t.o.Book.Best(t.o.Target)
	var known []candidate
	for _, q := range t.order {
		if c, err := schedule.Parse(best[q.key].Schedule); err == nil && best[q.key].Kept {
			known = append(known, candidate{key: q.key, Choice: c})
		}
	}
	for len(known) > 0 {
		a, err := t.attempt(ctx, known, 2, t.base)
		if a == nil || a.wrong != nil {
			return err
		}
		b, s, taken := a.build, a.samples, a.changes
		good := slices.DeleteFunc(slices.Clone(taken), func(c candidate) bool { return t.lost(c, s[0], s[1]) })
		if len(good) == len(taken) && faster(s[0], s[1]) {
			for _, c := range taken {
				c.Choice = siteOf(b.Program, c.key).Chosen
				t.choose(c, best[c.key].Ratio())
			}
			t.adopt(b)
			t.clockIn(s[1])
			t.ratio = s[1].total(both) / s[0].total(both)
			return nil
		}
		b.Close()
		if len(good) == len(taken) {
			good = slices.DeleteFunc(good, func(c candidate) bool { return !wins(c, s[0], s[1], 0) })
		}
		if len(good) == len(taken) {
			good = nil // each is faster, together they are slower
		}
		for _, c := range taken {
			if !slices.ContainsFunc(good, func(g candidate) bool { return g.key == c.key }) {
				t.o.Book.Drop(c.key, t.o.Target)
			}
		}
		known = good
	}
	return nil
}

// lost reports whether a record of the heuristic's own form is slower. Those of
// other forms may gain at the sites around.
func (t *tuner) lost(c candidate, base, b *sample) bool {
	q := t.sites[c.key]
	for half := range 2 {
		if old, now := versus(c, base, b, half); now < old*(1+margin) {
			return false
		}
	}
	return c.Form == q.heuristic.Form
}

// finish measures whole runs of the heuristic's program and the best one in
// turns, and their sites. An interrupted search gives what it knows.
func (t *tuner) finish(ctx context.Context) (*Result, error) {
	r := &Result{Picks: maps.Clone(t.picks), Rounds: t.rounds, Trials: t.trials, Ratio: t.ratio, Refused: t.refused, Wrong: t.wrong, Sites: []Site{}}
	s := []*sample{}
	err := ctx.Err()
	if err == nil {
		r.Before, r.After, err = t.race(ctx)
	}
	if err == nil {
		s, err = t.measure(ctx, 2, t.base, t.inc)
	}
	if err == nil {
		r.Before.Steps, r.After.Steps = s[0].total(both), s[1].total(both)
		r.Ratio = r.After.Steps / r.Before.Steps
		if len(t.picks) == 0 || r.Ratio >= 1 {
			t.surrender(r)
			s[1] = s[0]
		}
		err = t.save()
	}
	for _, q := range t.order {
		line := Site{Key: q.key, Heuristic: q.heuristic.String(), Schedule: q.heuristic.String(), Tried: len(q.tried) - 1}
		if c, ok := r.Picks[q.key]; ok {
			line.Schedule = c.String()
		}
		if len(s) == 2 {
			line.Calls, line.Before, line.After = s[0].calls(q.key), s[0].site(q.key, both), s[1].site(q.key, both)
		}
		r.Sites = append(r.Sites, line)
	}
	slices.SortStableFunc(r.Sites, func(a, b Site) int {
		switch {
		case a.Before > b.Before:
			return -1
		case a.Before < b.Before:
			return 1
		}
		return 0
	})
	if ctx.Err() != nil {
		err = t.save()
	}
	return r, err
}

// surrender takes everything back: the heuristic was not beaten.
func (t *tuner) surrender(r *Result) {
	for key := range t.picks {
		t.o.Book.Drop(key, t.o.Target)
	}
	r.Picks, r.After, r.Ratio = map[string]schedule.Choice{}, r.Before, 1
}

// race runs both programs in turns.
func (t *tuner) race(ctx context.Context) (before, after Total, err error) {
	turns, runs := plan(max(t.base.took, t.inc.took))
	var times [2][]time.Duration
	for range 2 * turns {
		for i, b := range []*build{t.base, t.inc} {
			if err := ctx.Err(); err != nil {
				return before, after, err
			}
			t.rest()
			for n := range runs + 1 {
				d, err := b.Run()
				if err != nil {
					return before, after, err
				}
				if n > 0 || runs == 1 {
					times[i] = append(times[i], d)
				}
			}
		}
	}
	total := func(ds []time.Duration) Total {
		slices.Sort(ds)
		us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
		return Total{Shortest: us(ds[0]), Median: us(ds[len(ds)/2])}
	}
	return total(times[0]), total(times[1]), nil
}
