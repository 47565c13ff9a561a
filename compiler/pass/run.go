package pass

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

// Options of a run of passes.
type Options struct {
	// DumpAfter names passes whose result is handed to Dump as text.
	DumpAfter []string
	Dump      func(pass, text string) error
	// StopAfter is the number of edits, over all passes, after which nothing
	// more is changed: halving it finds the edit that breaks a model. 0 means
	// no limit.
	StopAfter int
	// Skip names passes to leave out.
	Skip []string
	// Progress, if not nil, hears of each pass before it runs.
	Progress func(pass string)
	// Stack, if not nil, gets the stack of a pass that panicked.
	Stack func(pass string, stack []byte)
}

// Run runs passes in order. The graph is verified before and after each; a
// pass that leaves an unsound graph, or panics, is an internal error that
// names it.
func Run(ctx context.Context, list []Pass, s *Subject, o Options) (Report, error) {
	rep := Report{}
	if err := checkNames(list, o); err != nil {
		return rep, err
	}
	if err := ir.Verify(s.Graph); err != nil {
		return rep, fault.New(fault.BadModel, "%w", err)
	}
	log := &rewrite.Log{Limit: o.StopAfter}
	for i := range list {
		p := &list[i]
		if slices.Contains(o.Skip, p.Name) && !p.Always {
			continue
		}
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		if s.Graph.Level != p.From {
			return rep, fmt.Errorf("pass %s works on %s graphs, this one is %s", p.Name, p.From, s.Graph.Level)
		}
		if o.Progress != nil {
			o.Progress(p.Name)
		}
		step, err := one(ctx, p, s, log, o)
		rep.Steps = append(rep.Steps, step)
		rep.Edits = log.Edits
		if err != nil {
			return rep, err
		}
		if slices.Contains(o.DumpAfter, p.Name) && o.Dump != nil {
			if err := o.Dump(p.Name, ir.Print(s.Graph)); err != nil {
				return rep, err
			}
		}
		if log.Full() && !p.Always {
			rep.Stopped = true
			break
		}
	}
	return rep, nil
}

func one(ctx context.Context, p *Pass, s *Subject, log *rewrite.Log, o Options) (step Step, err error) {
	start, had := time.Now(), len(log.Edits)
	log.Pass = p.Name
	step = Step{Pass: p.Name, Before: Count(s.Graph)}
	defer func() {
		if r := recover(); r != nil {
			if o.Stack != nil {
				o.Stack(p.Name, debug.Stack())
			}
			err = fmt.Errorf("internal error in pass %s%s: %v", p.Name, lastNode(log, had), r)
		}
		step.Edits, step.Seconds = len(log.Edits)-had, time.Since(start).Seconds()
	}()
	if step.Notes, err = p.Run(ctx, s, log); err != nil {
		return step, err
	}
	if err := ir.Verify(s.Graph); err != nil {
		return step, fmt.Errorf("internal error after pass %s%s: %w", p.Name, lastNode(log, had), err)
	}
	if s.Graph.Level != p.To {
		return step, fmt.Errorf("internal error after pass %s: the graph is %s, not %s", p.Name, s.Graph.Level, p.To)
	}
	step.After = Count(s.Graph)
	return step, nil
}

// lastNode says what was edited last, which is where to look.
func lastNode(log *rewrite.Log, had int) string {
	if len(log.Edits) == had {
		return ""
	}
	e := log.Edits[len(log.Edits)-1]
	return fmt.Sprintf(" (after edit %d, %s at node %q)", len(log.Edits), e.Rule, e.Node)
}

func checkNames(list []Pass, o Options) error {
	known := func(name string) bool {
		return slices.ContainsFunc(list, func(p Pass) bool { return p.Name == name })
	}
	for _, n := range slices.Concat(o.DumpAfter, o.Skip) {
		if !known(n) {
			var names []string
			for _, p := range list {
				names = append(names, p.Name)
			}
			return fault.New(fault.Usage, "no pass is called %q", n).Hint("the passes of this command are %v", names)
		}
	}
	return nil
}
