// Package compiler is the driver: the order of the stages from a core graph to
// a program. The stages themselves are in its sub-packages; it imports no
// backend and no pass.
package compiler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// Options are what a user asks of a compilation beside its target.
type Options struct {
	Precision precision.Mode
	// Threads is how many threads the work is cut for; 0 is 1.
	Threads int
	// PrecisionAt gives each layer a precision of its own, by the name of the value
	// that it stores; nil: all have Precision.
	PrecisionAt func(layer string) precision.Mode
	// Schedules gives recorded decisions; nil: the heuristics decide.
	Schedules schedule.Lookup
	// Others gives all recorded decisions for a key, the best first: the next one is
	// taken where the generators do not take one before. nil: Schedules' alone.
	Others func(key string) []schedule.Choice
	// Explore asks for the neighbours of every decision, for tuning.
	Explore bool
}

// Program lowers a core graph for a target. A recorded decision that the
// generators do not take as it stands is a miss as a whole: the program is then
// the one that is made with the next of Others, or without a record.
func Program(g *ir.Graph, t backend.Traits, o Options) (*program.Program, error) {
	if g.Level != ir.Core {
		return nil, fmt.Errorf("internal error: lowering a graph of level %s", g.Level)
	}
	if err := able(t, o.Precision); err != nil {
		return nil, err
	}
	var p *program.Program
	err := settle(lowering(t, o), o.Others, func(o lower.Options) (_ *program.Program, err error) {
		p, err = lower.Lower(g, o)
		return p, err
	})
	return p, err
}

// narrow are the instruction sets, one of which a precision below f32 needs.
var narrow = map[precision.Mode][]string{
	precision.F16:  {"f16c"},
	precision.BF16: {"avx512-bf16", "amx-bf16"},
}

// able refuses a precision that gives nothing on a target.
func able(t backend.Traits, m precision.Mode) error {
	need := narrow[m]
	if len(need) == 0 || slices.ContainsFunc(need, t.Has) {
		return nil
	}
	return fault.New(fault.Unsupported, "the precision %s needs %s, which %s does not have", m, strings.Join(need, " or "), t.CPU).
		Hint("use --precision %s, or another --cpu", precision.Fast)
}

// Watch is Program with the values of all layers as outputs beside the model's.
func Watch(g *ir.Graph, t backend.Traits, o Options) (*lower.Watched, error) {
	if err := able(t, o.Precision); err != nil {
		return nil, err
	}
	var w *lower.Watched
	err := settle(lowering(t, o), o.Others, func(o lower.Options) (_ *program.Program, err error) {
		if w, err = lower.Watch(g, o); err != nil {
			return nil, err
		}
		return w.Program, nil
	})
	return w, err
}

func lowering(t backend.Traits, o Options) lower.Options {
	return lower.Options{
		Lanes: t.Lanes, Regs: t.Regs, Features: t.Features,
		Threads: o.Threads, Precision: o.Precision, PrecisionAt: o.PrecisionAt, Schedules: o.Schedules, Explore: o.Explore,
	}
}

// settle lowers until all records that were found were taken as they stand;
// those that were not give way to the next the next time.
func settle(o lower.Options, others func(string) []schedule.Choice, make func(lower.Options) (*program.Program, error)) error {
	lookup, refused := o.Schedules, map[string]int{}
	for {
		found := map[string]schedule.Choice{}
		if lookup != nil || others != nil {
			o.Schedules = func(key string) (schedule.Choice, bool) {
				c, ok := nth(lookup, others, key, refused[key])
				if ok {
					found[key] = c
				}
				return c, ok
			}
		}
		p, err := make(o)
		if err != nil {
			return err
		}
		for _, s := range p.Sites {
			if c, ok := found[s.Key]; ok && s.Recorded && s.Chosen.Honours(c) {
				delete(found, s.Key)
			}
		}
		if len(found) == 0 {
			return nil
		}
		for key := range found {
			refused[key]++
		}
	}
}

// nth is the recorded choice for a key after n that were refused.
func nth(lookup schedule.Lookup, others func(string) []schedule.Choice, key string, n int) (schedule.Choice, bool) {
	if others == nil {
		c, ok := lookup(key)
		return c, ok && n == 0
	}
	if list := others(key); n < len(list) {
		return list[n], true
	}
	return schedule.Choice{}, false
}
