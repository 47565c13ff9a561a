package tune_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/search/tune"
)

// landscape is a machine whose times are known: sites in a row, each with a
// best choice that the order of its space does not tell.
type landscape struct {
	sites   []spot
	convert float64 // µs of a copy between neighbours whose forms have other layouts
	noise   float64 // mean of what is added to a time, as a share
	rng     *rand.Rand
	wrong   schedule.Choice // makes wrong programs; zero: none
	builds  int
	open    int
	lowered map[string]map[schedule.Choice]int
}

// spot is a site: us is the time of its best choice.
type spot struct {
	us    float64
	best  schedule.Choice
	forms map[string]float64 // factor of a form; the heuristic's is the first by name
}

// cost is the time of a choice in µs.
func (s spot) cost(c schedule.Choice) float64 {
	f := s.forms[c.Form]
	f *= 1 + 0.1*math.Abs(math.Log2(float64(c.OB)/float64(s.best.OB)))
	f *= 1 + 0.05*math.Abs(float64(c.TW-s.best.TW))
	if c.Prefetch != s.best.Prefetch {
		f *= 1.1
	}
	return s.us * f
}

// full completes a choice by the heuristic's knobs; false if there is no such.
func (s spot) full(c schedule.Choice) (schedule.Choice, bool) {
	if c.Form == "" {
		for f := range s.forms {
			if c.Form == "" || f < c.Form {
				c.Form = f
			}
		}
	}
	if c.OB == 0 {
		c.OB, c.TW = 1, 8
	}
	if c.Prefetch == 0 {
		c.Prefetch = 1
	}
	_, ok := s.forms[c.Form]
	return c, ok && c.OB*c.TW <= 24
}

func (s spot) space(c schedule.Choice) []schedule.Choice {
	var out []schedule.Choice
	for f := range s.forms {
		if f != c.Form {
			out = append(out, schedule.Choice{Form: f})
		}
	}
	slices.SortFunc(out, func(a, b schedule.Choice) int { return slices.Compare([]string{a.Form}, []string{b.Form}) })
	for tw := 12; tw > 0; tw-- {
		for ob := 1; ob <= 8; ob *= 2 {
			n := c
			if n.OB, n.TW = ob, tw; ob*tw <= 24 && n != c {
				out = append(out, n)
			}
		}
	}
	for _, p := range []int{1, 1024} {
		n := c
		if n.Prefetch = p; n != c {
			out = append(out, n)
		}
	}
	return out
}

// blocked reports whether a form stores channel blocks.
func blocked(form string) bool { return form != "pixels" }

func (l *landscape) program(look schedule.Lookup) (*program.Program, error) {
	p := &program.Program{}
	if l.lowered == nil {
		l.lowered = map[string]map[schedule.Choice]int{}
	}
	last := true
	for i, s := range l.sites {
		key := fmt.Sprint("site", i)
		h, _ := s.full(schedule.Choice{})
		site := schedule.Site{Key: key, Chosen: h}
		if c, ok := look(key); ok {
			if f, legal := s.full(c); legal {
				site.Chosen, site.Recorded = f, true
			}
		}
		site.Space = s.space(site.Chosen)
		p.Sites = append(p.Sites, site)
		if now := blocked(site.Chosen.Form); now != last {
			p.Steps = append(p.Steps, program.Step{Kernel: &loop.Kernel{Family: "copy"}, Layer: key})
			last = now
		}
		p.Steps = append(p.Steps, program.Step{Kernel: &loop.Kernel{Family: key + site.Chosen.String()}, Site: key, Layer: key})
	}
	return p, nil
}

func (l *landscape) build(ctx context.Context, p *program.Program) (tune.Runner, error) {
	l.builds++
	r := &runner{l: l}
	i := 0
	for _, s := range p.Steps {
		us := l.convert
		if s.Site != "" {
			c := p.Sites[i].Chosen
			if l.wrong != (schedule.Choice{}) && c.Honours(l.wrong) {
				return nil, &tune.Wrong{Err: errors.New("other results")}
			}
			if l.lowered[s.Site] == nil {
				l.lowered[s.Site] = map[schedule.Choice]int{}
			}
			l.lowered[s.Site][c]++
			us = l.sites[i].cost(c)
			i++
		}
		r.us = append(r.us, us)
	}
	l.open++
	return r, ctx.Err()
}

type runner struct {
	l  *landscape
	us []float64
}

func (r *runner) time(i int) time.Duration {
	us := r.us[i]
	if r.l.noise > 0 {
		us *= 1 + r.l.noise*r.l.rng.ExpFloat64()
	}
	return time.Duration(us * 1e3)
}

func (r *runner) Run() (time.Duration, error) {
	var d time.Duration
	for i := range r.us {
		d += r.time(i)
	}
	return d, nil
}

func (r *runner) Trace(best []time.Duration) error {
	for i := range r.us {
		if d := r.time(i); best[i] == 0 || d < best[i] {
			best[i] = d
		}
	}
	return nil
}

func (r *runner) Close() { r.l.open-- }

// valley is a landscape with an optimum that takes several steps at each site.
func valley(noise float64) *landscape {
	choice := func(form string, ob, tw, prefetch int) schedule.Choice {
		return schedule.Choice{Form: form, OB: ob, TW: tw, Prefetch: prefetch}
	}
	return &landscape{
		noise: noise, rng: rand.New(rand.NewPCG(5, 6)), convert: 30,
		sites: []spot{
			{100, choice("a", 4, 5, 1024), map[string]float64{"a": 1, "b": 1.5}},
			{60, choice("b", 2, 9, 1), map[string]float64{"a": 1.2, "b": 1}},             // another form, the same layout
			{200, choice("pixels", 2, 3, 1024), map[string]float64{"a": 2, "pixels": 1}}, // worth two conversions
			{40, choice("a", 1, 8, 1), map[string]float64{"a": 1, "pixels": 0.8}},        // not worth them
			{20, choice("a", 8, 2, 1024), map[string]float64{"a": 1}},
			{50, choice("a", 1, 8, 1), map[string]float64{"a": 1}}, // the heuristic is right
		},
	}
}

// optimum is the time of the best program, by trying all forms of all sites
// with the best knobs.
func (l *landscape) optimum() float64 {
	best := math.Inf(1)
	picks := map[string]schedule.Choice{}
	var all func(i int)
	all = func(i int) {
		if i == len(l.sites) {
			best = min(best, l.time(picks))
			return
		}
		for f := range l.sites[i].forms {
			c := l.sites[i].best
			c.Form = f
			picks[fmt.Sprint("site", i)] = c
			all(i + 1)
		}
	}
	all(0)
	return best
}

// time is that of the program of some picks.
func (l *landscape) time(picks map[string]schedule.Choice) float64 {
	p, _ := l.program(func(k string) (schedule.Choice, bool) { c, ok := picks[k]; return c, ok })
	us, i := 0.0, 0
	for _, s := range p.Steps {
		if s.Site == "" {
			us += l.convert
			continue
		}
		us += l.sites[i].cost(p.Sites[i].Chosen)
		i++
	}
	return us
}
