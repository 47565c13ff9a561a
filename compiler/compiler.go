// Package compiler is the driver: the order of the stages from a core graph to
// a program. The stages themselves are in its sub-packages; it imports no
// backend and no pass.
package compiler

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// Options are what a user asks of a compilation beside its target.
type Options struct {
	Precision precision.Mode
	// PrecisionAt gives each layer a precision of its own, by the name of the value
	// that it stores; nil: all have Precision.
	PrecisionAt func(layer string) precision.Mode
	// Schedules gives recorded decisions; nil: the heuristics decide.
	Schedules schedule.Lookup
	// Explore asks for the neighbours of every decision, for tuning.
	Explore bool
}

// Program lowers a core graph for a target.
func Program(g *ir.Graph, t backend.Traits, o Options) (*program.Program, error) {
	if g.Level != ir.Core {
		return nil, fmt.Errorf("internal error: lowering a graph of level %s", g.Level)
	}
	return lower.Lower(g, lowering(t, o))
}

// Watch is Program with the values of all layers as outputs beside the model's.
func Watch(g *ir.Graph, t backend.Traits, o Options) (*lower.Watched, error) {
	return lower.Watch(g, lowering(t, o))
}

func lowering(t backend.Traits, o Options) lower.Options {
	return lower.Options{
		Lanes: t.Lanes, Regs: t.Regs,
		Precision: o.Precision, PrecisionAt: o.PrecisionAt, Schedules: o.Schedules, Explore: o.Explore,
	}
}
