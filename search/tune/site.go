package tune

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

// candidate is a change of one site.
type candidate struct {
	key string
	schedule.Choice
	layers map[string]bool // that it reaches; nil: those of the site
}

// arm is the best known choice of one form, and what lies around it.
type arm struct {
	best  schedule.Choice
	ratio float64           // time over the heuristic's
	known bool              // space is that of best
	space []schedule.Choice // neighbours, in the order in which they are tried
}

// site is the search at one site.
type site struct {
	key       string
	heuristic schedule.Choice
	chosen    schedule.Choice // the incumbent's
	ratio     float64         // of the incumbent
	us        float64         // of the incumbent, as last measured
	tried     map[schedule.Choice]bool
	arms      map[string]*arm
	forms     []string        // other forms, in the generator's order
	local     map[string]bool // forms that leave other layers as they are
	turn      int
	dry       int // trials since the last gain
	done      bool
}

func newSite(s schedule.Site) *site {
	q := &site{key: s.Key, heuristic: s.Chosen, chosen: s.Chosen, ratio: 1,
		tried: map[schedule.Choice]bool{s.Chosen: true}, arms: map[string]*arm{}}
	q.forms = otherForms(s)
	q.arms[s.Chosen.Form] = &arm{best: s.Chosen, ratio: 1}
	q.around(s)
	return q
}

// otherForms lists the forms that a site could take.
func otherForms(s schedule.Site) []string {
	var out []string
	for _, c := range s.Space {
		if c == (schedule.Choice{Form: c.Form}) && c.Form != s.Chosen.Form {
			out = append(out, c.Form)
		}
	}
	return out
}

// learn notes a measurement.
func (q *site) learn(c schedule.Choice, ratio float64) {
	q.tried[c] = true
	a := q.arms[c.Form]
	switch {
	case a == nil:
		q.arms[c.Form] = &arm{best: c, ratio: ratio}
	case c == a.best:
		a.ratio = ratio
	case ratio < a.ratio:
		*a = arm{best: c, ratio: ratio}
	}
}

// refuse notes a choice that cannot be.
func (q *site) refuse(c schedule.Choice) {
	q.tried[c] = true
	if q.arms[c.Form] == nil { // the form as such
		q.arms[c.Form] = &arm{best: c, ratio: math.Inf(1), known: true}
	}
}

// around notes the neighbours of a choice that was lowered, if it is the best
// of its form.
func (q *site) around(s schedule.Site) {
	a := q.arms[s.Chosen.Form]
	if a == nil || a.known || a.best != s.Chosen {
		return
	}
	a.known, a.space = true, interleave(s.Chosen, s.Space)
}

// The knobs that are changed together.
const (
	knobForm = iota
	knobTile
	knobRows
	knobPrefetch
	knobs
)

// knob tells by which knob a neighbour differs.
func knob(from, to schedule.Choice) int {
	switch {
	case from.Form != to.Form:
		return knobForm
	case from.Rows != to.Rows:
		return knobRows
	case from.OB != to.OB || from.TR != to.TR || from.TW != to.TW:
		return knobTile
	}
	return knobPrefetch
}

// interleave puts the most promising value of each knob before the second ones.
func interleave(from schedule.Choice, space []schedule.Choice) []schedule.Choice {
	var by [knobs][]schedule.Choice
	for _, c := range space {
		k := knob(from, c)
		by[k] = append(by[k], c)
	}
	var out []schedule.Choice
	for i := 0; len(out) < len(space)-len(by[knobForm]); i++ {
		for _, list := range by[knobForm+1:] {
			if i < len(list) {
				out = append(out, list[i])
			}
		}
	}
	return out
}

// cross takes each knob that b changes from b, and the others from a.
func cross(from, a, b schedule.Choice) schedule.Choice {
	if b.OB != from.OB || b.TR != from.TR || b.TW != from.TW {
		a.OB, a.TR, a.TW = b.OB, b.TR, b.TW
	}
	if b.Rows != from.Rows {
		a.Rows = b.Rows
	}
	if b.Prefetch != from.Prefetch {
		a.Prefetch = b.Prefetch
	}
	return a
}

// worthwhile is how much slower the best of a form may be than the best of all
// for its neighbours to be tried.
const worthwhile = 1.25

// byRatio lists the arms that are worth a trial, the best first.
func (q *site) byRatio() []*arm {
	best := math.Inf(1)
	var out []*arm
	for _, a := range q.arms {
		best = min(best, a.ratio)
		out = append(out, a)
	}
	out = slices.DeleteFunc(out, func(a *arm) bool { return a.ratio > worthwhile*best || math.IsInf(a.ratio, 1) })
	slices.SortFunc(out, func(a, b *arm) int {
		if a.ratio != b.ratio {
			return int(math.Copysign(1, a.ratio-b.ratio))
		}
		return slices.Compare([]string{a.best.Form}, []string{b.best.Form})
	})
	return out
}

// next gives what to try next: first every form as its heuristic has it, then
// what lies around the best of the best form, and at every third turn of
// another one. explore tells the neighbours of a choice.
func (q *site) next(r *rand.Rand, explore func(*site, schedule.Choice)) (schedule.Choice, bool) {
	for len(q.forms) > 0 {
		c := schedule.Choice{Form: q.forms[0]}
		q.forms = q.forms[1:]
		if q.arms[c.Form] == nil {
			return c, true
		}
	}
	q.turn++
	arms := q.byRatio()
	if n := len(arms); n > 1 && q.turn%3 == 0 {
		i := 1 + q.turn/3%(n-1)
		arms[0], arms[i] = arms[i], arms[0]
	}
	for _, a := range arms {
		if !a.known {
			explore(q, a.best)
			a.known = true
		}
		if c, ok := q.from(a, r); ok {
			return c, true
		}
	}
	return schedule.Choice{}, false
}

// from gives an untried choice around an arm's best one: a neighbour, else two
// changes at once by chance.
func (q *site) from(a *arm, r *rand.Rand) (schedule.Choice, bool) {
	for _, c := range a.space {
		if !q.tried[c] {
			return c, true
		}
	}
	for range 16 {
		if len(a.space) < 2 {
			break
		}
		c := cross(a.best, a.space[r.IntN(len(a.space))], a.space[r.IntN(len(a.space))])
		if !q.tried[c] && c != a.best {
			return c, true
		}
	}
	return schedule.Choice{}, false
}

// potential is what a trial at the site may be worth: its time, less for each
// trial in vain.
func (q *site) potential() float64 {
	if q.done {
		return 0
	}
	return q.us / (1 + float64(q.dry)/6)
}
