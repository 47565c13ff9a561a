package lower

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// site is a decision being made: what a record says, and what became of it.
type site struct {
	schedule.Site
	record schedule.Choice
	seen   map[schedule.Choice]bool
	forms  []string
	fixed  bool                   // the form is not open: another one would sum in another order
	fit    func(*schedule.Choice) // unsets knobs of a neighbour that cannot stay as they are
}

// siteOf finds or makes the site of an anchor. head tells the anchor's own
// structure; the ops fused behind it are added.
func (l *lowerer) siteOf(n *ir.Node, head string) *site {
	key := fmt.Sprintf("%s lanes%d regs%d", head, l.o.Lanes, l.o.Regs)
	if m := l.mode(n); m.String() != precision.F32.String() {
		key += " " + m.String()
	}
	if g := l.member[n.Outputs[0]]; g != nil && len(l.fused[g]) > 1 {
		ops := slices.Clone(l.fused[g])
		sort.Strings(ops)
		key += " with " + strings.Join(ops, "+")
	}
	s := l.sites[key]
	if s == nil {
		s = &site{Site: schedule.Site{Key: key}, seen: map[schedule.Choice]bool{}, fixed: l.mode(n) == precision.IEEE}
		if l.o.Schedules != nil {
			s.record, s.Recorded = l.o.Schedules(key)
		}
		l.sites[key] = s
	}
	return s
}

// mode is the precision of the layer around an anchor.
func (l *lowerer) mode(n *ir.Node) precision.Mode {
	if l.o.PrecisionAt == nil {
		return l.o.Precision
	}
	layer := n.Outputs[0].Name
	if g := l.member[n.Outputs[0]]; g != nil {
		layer = g.root.Name
	}
	return l.o.PrecisionAt(layer)
}

// form decides the algorithm: the recorded one if it is among the possible
// ones, else the heuristic's. A record for anything else is a miss as a whole.
func (s *site) form(heuristic string, possible ...string) string {
	if s.fixed {
		possible = []string{heuristic}
	}
	s.forms = possible
	if s.Recorded && !slices.Contains(possible, s.record.Form) {
		s.Recorded, s.record = false, schedule.Choice{}
	}
	if s.Recorded {
		heuristic = s.record.Form
	}
	s.Chosen.Form = heuristic
	return heuristic
}

// tile decides the register tile of the site's form; see tiles for the
// parameters.
func (l *lowerer) tile(s *site, cb, rows, cols, steps int, lanes bool, more ...func(tileShape) float64) tileShape {
	all := l.tiles(cb, rows, cols, steps, lanes, more...)
	best := all[0]
	if r := s.record; s.Recorded && r.OB+r.TR+r.TW > 0 {
		if t := (tileShape{r.OB, r.TR, r.TW}); slices.Contains(all, t) {
			best = t
		} else {
			s.Recorded, s.record = false, schedule.Choice{}
		}
	}
	s.Chosen.OB, s.Chosen.TR, s.Chosen.TW = best.OB, best.TR, best.TW
	for _, t := range all[:min(len(all), 32)] {
		l.propose(s, func(c *schedule.Choice) { c.OB, c.TR, c.TW = t.OB, t.TR, t.TW })
	}
	return best
}

// number decides one numeric knob, which at points at within a choice.
func (l *lowerer) number(s *site, at func(*schedule.Choice) *int, heuristic int, possible ...int) int {
	if r := *at(&s.record); s.Recorded && r != 0 && slices.Contains(possible, r) {
		heuristic = r
	}
	*at(&s.Chosen) = heuristic
	for _, v := range possible {
		l.propose(s, func(c *schedule.Choice) { *at(c) = v })
	}
	return heuristic
}

// noPrefetch is the value of the knob for no prefetch where the heuristic has one.
const noPrefetch = 1

// prefetch decides how far ahead a site's weights are fetched, of which there are
// so many bytes; once of tiles that read each weight for one point alone. What
// the first cache holds needs no help, and neither does a single stream.
func (l *lowerer) prefetch(s *site, bytes int, once bool) int {
	at := func(c *schedule.Choice) *int { return &c.Prefetch }
	if bytes < 48<<10 || once {
		return l.number(s, at, 0, 1024, 2048, 4096)
	}
	if n := l.number(s, at, 2048, noPrefetch, 1024, 2048, 4096); n != noPrefetch {
		return n
	}
	return 0
}

// propose notes a neighbour of the choice being made. It is completed when the
// site is closed, because knobs that are decided later belong to it too.
func (l *lowerer) propose(s *site, change func(*schedule.Choice)) {
	if l.o.Explore {
		l.changes = append(l.changes, change)
	}
}

// close ends the decisions of a site for one kernel.
func (l *lowerer) close(s *site, flops int64) {
	if s.Flops == 0 {
		l.used = append(l.used, s)
	}
	s.Flops += max(flops, 1)
	if !l.o.Explore {
		return
	}
	s.seen[s.Chosen] = true
	add := func(c schedule.Choice) {
		if !s.seen[c] {
			s.seen[c] = true
			s.Space = append(s.Space, c)
		}
	}
	for _, f := range s.forms {
		if f != s.Chosen.Form {
			add(schedule.Choice{Form: f})
		}
	}
	for _, change := range l.changes {
		c := s.Chosen
		change(&c)
		if s.fit != nil {
			s.fit(&c)
		}
		add(c)
	}
	l.changes = l.changes[:0]
}

// efforts are about the times of forms in units of plain multiply-adds of f32
// of the same contraction, on large ones.
var efforts = map[string]float64{
	formAMXInt8: 0.1, formWinograd + "2": 0.6, formWinograd + "4": 0.42, formWinograd + "6": 0.36, "bf16": 0.5, "f16": 0.9,
	formAMX: 0.16, formAMX3: 0.38, formAMX6: 0.66, formWinograd + "4-" + formAMX3: 0.22, formWinograd + "4-" + formAMX6: 0.3,
}

// Effort is about how long a contraction takes in a form, in units of plain
// multiply-adds of f32: what a choice between precisions goes by where nothing
// is measured. Forms that are not known take as long as those.
func Effort(form string) float64 {
	if e, ok := efforts[form]; ok {
		return e
	}
	return 1
}
