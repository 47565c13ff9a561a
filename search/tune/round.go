package tune

import (
	"context"

	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// least is the share of the largest potential below which a site waits.
const least = 0.05

// batch picks a change for every site that is worth one. Changes that reach
// into the same layer are not made at once: the later one waits for a round.
func (t *tuner) batch() []candidate {
	most := 0.0
	for _, q := range t.order {
		most = max(most, q.potential())
	}
	var out []candidate
	used, waits := map[string]bool{}, map[string]bool{}
	own := layersOf(t.inc.Program)
	add := func(c candidate) {
		layers := c.layers
		if layers == nil {
			layers = own[c.key]
		}
		for l := range layers {
			if used[l] {
				t.waiting = append(t.waiting, c)
				waits[c.key] = true
				return
			}
		}
		for l := range layers {
			used[l] = true
		}
		out = append(out, c)
	}
	waited := t.waiting
	t.waiting = nil
	for _, c := range waited {
		waits[c.key] = true // no other change of its site meanwhile
		c.layers = t.reach(t.sites[c.key], c.Choice)
		add(c)
	}
	for _, q := range t.order {
		if waits[q.key] || q.potential() == 0 || q.potential() < least*most {
			continue
		}
		c, ok := q.next(t.rng, t.explore)
		if !ok {
			q.done = true
			continue
		}
		q.tried[c] = true
		add(candidate{q.key, c, t.reach(q, c)})
	}
	return out
}

// layersOf lists the layers of each site.
func layersOf(p *program.Program) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, s := range p.Steps {
		if out[s.Site] == nil {
			out[s.Site] = map[string]bool{}
		}
		out[s.Site][s.Layer] = true
	}
	return out
}

// explore lowers a choice at a site to learn its neighbours.
func (t *tuner) explore(q *site, c schedule.Choice) {
	p, legal, err := t.lower([]candidate{{key: q.key, Choice: c}})
	if err == nil && len(legal) > 0 {
		q.around(siteOf(p, q.key))
	}
}

func siteOf(p *program.Program, key string) schedule.Site {
	for _, s := range p.Sites {
		if s.Key == key {
			return s
		}
	}
	return schedule.Site{}
}

// reach lists the layers whose kernels a choice changes in the incumbent's
// program; nil for those of its site alone. Other forms may have other layouts,
// and then conversions move; the other knobs stay within their site.
func (t *tuner) reach(q *site, c schedule.Choice) map[string]bool {
	if c.Form == q.chosen.Form || q.local[c.Form] {
		return nil
	}
	p, legal, err := t.lower([]candidate{{key: q.key, Choice: c}})
	if err != nil || len(legal) == 0 {
		return nil // it is told when it is tried
	}
	a, b := kernelsOf(t.inc.Program), kernelsOf(p)
	out := layersOf(t.inc.Program)[q.key]
	n := len(out)
	for l := range b {
		if a[l] != b[l] {
			out[l] = true
		}
	}
	for l := range a {
		if a[l] != b[l] {
			out[l] = true
		}
	}
	if len(out) > n {
		return out
	}
	if q.local == nil {
		q.local = map[string]bool{}
	}
	q.local[c.Form] = true
	return nil
}

// kernelsOf is the text of each layer's kernels.
func kernelsOf(p *program.Program) map[string]string {
	out := map[string]string{}
	for _, s := range p.Steps {
		out[s.Layer] += s.Kernel.String()
	}
	return out
}

// trial measures changes against the incumbent and gives those that won. If
// their program is wrong, the halves are tried alone.
func (t *tuner) trial(ctx context.Context, changes []candidate) ([]candidate, error) {
	a, err := t.attempt(ctx, changes, 1, t.inc)
	if a == nil {
		return nil, err
	}
	if changes = a.changes; a.wrong != nil {
		if len(changes) == 1 {
			t.reject(changes[0], a.wrong)
			return nil, nil
		}
		half := len(changes) / 2
		won, err := t.trial(ctx, changes[:half])
		if err != nil {
			return nil, err
		}
		more, err := t.trial(ctx, changes[half:])
		return append(won, more...), err
	}
	defer a.Close()
	s := a.samples
	t.clockIn(s[0])
	var won []candidate
	for _, c := range changes {
		t.trials++
		q := t.sites[c.key]
		made := siteOf(a.Program, c.key)
		c.Choice = made.Chosen
		old, now := versus(c, s[0], s[1], both)
		ratio := q.ratio * now / old
		q.dry++
		q.learn(c.Choice, ratio)
		q.around(made)
		t.o.Book.Add(t.record(c, old/q.ratio, ratio, s[1].runs))
		if c.Choice != q.chosen && wins(c, s[0], s[1], margin) {
			won = append(won, c)
		}
	}
	return won, nil
}

// reject notes a change that makes a wrong program.
func (t *tuner) reject(c candidate, err error) {
	t.sites[c.key].refuse(c.Choice)
	t.wrong = append(t.wrong, c.key+": "+c.String()+": "+err.Error())
}

// clockIn notes what the incumbent's sites take.
func (t *tuner) clockIn(s *sample) {
	for _, q := range t.order {
		q.us = s.site(q.key, both)
	}
}

// versus gives a site's time before and after a change. Of a change that moves
// layouts, what all layers that it reaches gained or lost counts.
func versus(c candidate, inc, b *sample, half int) (old, now float64) {
	old, now = inc.site(c.key, half), b.site(c.key, half)
	if c.layers != nil {
		now = old + b.layers(c.layers, half) - inc.layers(c.layers, half)
	}
	return max(old, leastUS), max(now, leastUS)
}

// wins reports whether a change is faster by a share in both halves.
func wins(c candidate, inc, b *sample, by float64) bool {
	for half := range 2 {
		old, now := versus(c, inc, b, half)
		if now > old*(1-by) || now > old-clock*float64(inc.calls(c.key)) {
			return false
		}
	}
	return true
}

// faster reports whether a whole program is faster in both halves.
func faster(a, b *sample) bool {
	return b.total(0) < a.total(0) && b.total(1) < a.total(1)
}

// confirm measures the changes that won once more, without the others, and
// takes those that win again, if the whole program is faster with them.
func (t *tuner) confirm(ctx context.Context, won []candidate) error {
	if len(won) == 0 {
		return nil
	}
	a, err := t.attempt(ctx, won, 2, t.base, t.inc)
	if a == nil || a.wrong != nil {
		return err
	}
	b, s, won := a.build, a.samples, a.changes
	var again []candidate
	for _, c := range won {
		ratio := t.share(c, s)
		if wins(c, s[1], s[2], margin/2) && ratio < 1 {
			again = append(again, c)
		}
		t.sites[c.key].learn(c.Choice, ratio)
		t.o.Book.Add(t.record(c, s[0].site(c.key, both), ratio, 2*s[2].runs)) // counts for more than the trial
	}
	switch {
	case len(again) == len(won) && faster(s[1], s[2]):
		t.accept(b, won, s)
		return nil
	case len(again) == len(won) && len(won) > 1: // together they are slower
		b.Close()
		if err := t.confirm(ctx, won[:len(won)/2]); err != nil {
			return err
		}
		return t.confirm(ctx, won[len(won)/2:])
	case len(again) == len(won):
		again = nil
	}
	b.Close()
	return t.confirm(ctx, again)
}

// share is the site's time with a change over the heuristic's; s are the
// heuristic's, the incumbent's and the changed program.
func (t *tuner) share(c candidate, s []*sample) float64 {
	if c.layers != nil {
		old, now := versus(c, s[1], s[2], both)
		return t.sites[c.key].ratio * now / old
	}
	return s[2].site(c.key, both) / max(s[0].site(c.key, both), leastUS)
}

// accept makes a program the incumbent.
func (t *tuner) accept(b *build, changes []candidate, s []*sample) {
	for _, c := range changes {
		ratio := t.share(c, s)
		t.o.Book.Keep(t.record(c, s[0].site(c.key, both), ratio, s[2].runs))
		t.choose(c, ratio)
	}
	t.adopt(b)
	t.clockIn(s[2])
	t.ratio = s[2].total(both) / s[0].total(both)
}

// choose makes a change a part of the incumbent.
func (t *tuner) choose(c candidate, ratio float64) {
	q := t.sites[c.key]
	if q.chosen.Form != c.Form {
		for _, other := range t.order {
			other.local = nil // what moves others depends on their forms
		}
	}
	q.chosen, q.ratio, q.dry, q.done = c.Choice, ratio, 0, false
	q.learn(c.Choice, ratio)
	t.picks[c.key] = c.Choice
}

// adopt replaces the incumbent.
func (t *tuner) adopt(b *build) {
	if t.inc != t.base && t.inc != b {
		t.inc.Close()
	}
	t.inc = b
}

func (t *tuner) record(c candidate, heuristic, ratio float64, runs int) schedule.Record {
	round := func(us float64) float64 { return float64(int64(max(us, leastUS)*1e3+0.5)) / 1e3 }
	return schedule.Record{
		Key: c.key, Target: t.o.Target, Space: schedule.SpaceVersion, Schedule: c.String(),
		Micros: round(heuristic * ratio), Heuristic: round(heuristic), Runs: runs, Lathe: t.o.Lathe,
	}
}
