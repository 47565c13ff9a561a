package backendtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// Picks are schedules for some sites, by their keys.
type Picks map[string]schedule.Choice

// Lookup gives the picks as records.
func (p Picks) Lookup(key string) (schedule.Choice, bool) {
	c, ok := p[key]
	return c, ok
}

// Wander goes some steps of a random walk through the schedules of a graph's
// sites: at each step every site takes one of the neighbours that its generator
// proposes. A proposal that lowering then does not take is an error.
func Wander(g *ir.Graph, t backend.Traits, o compiler.Options, r *rand.Rand, steps int) (Picks, error) {
	picks := Picks{}
	o.Schedules, o.Explore = picks.Lookup, true
	for range steps {
		p, err := compiler.Program(g, t, o)
		if err != nil {
			return nil, err
		}
		if err := picks.taken(p); err != nil {
			return nil, err
		}
		for _, s := range p.Sites {
			if len(s.Space) == 0 {
				continue
			}
			at := r.IntN(len(s.Space))
			if forms := otherForms(s); forms > 0 && r.IntN(3) > 0 {
				at = r.IntN(forms)
			}
			picks[s.Key] = s.Space[at]
		}
	}
	return picks, nil
}

// otherForms is how many of a site's neighbours, the first, are other forms.
func otherForms(s schedule.Site) int {
	n := 0
	for n < len(s.Space) && s.Space[n] == (schedule.Choice{Form: s.Space[n].Form}) {
		n++
	}
	return n
}

// taken holds that a program was made as the picks say.
func (p Picks) taken(made *program.Program) error {
	for _, s := range made.Sites {
		if c, ok := p[s.Key]; ok && !(s.Recorded && s.Chosen.Honours(c)) {
			return fmt.Errorf("site %q: %q was proposed and became %q", s.Key, c, s.Chosen)
		}
	}
	return nil
}
