package tune

import (
	"context"
	"errors"
	"time"

	"github.com/lathe-ml/lathe/compiler/program"
)

// What is measured at the least, and how much faster a change must be. Noise
// only adds: the shortest time of many short runs counts, and a change has won
// if it is faster in both halves of the runs, twice.
const (
	effort  = 150 * time.Millisecond // of tracing, per side
	block   = 10 * time.Millisecond  // one side's turn
	margin  = 0.02                   // gain of a site that is worth a confirmation
	clock   = 0.05                   // µs that a step's time may be off by
	leastUS = 1e-3                   // a time must be above 0
)

// build is a program that is ready to run.
type build struct {
	Runner
	*program.Program
	took time.Duration // of a run
}

// open builds a program and warms it up.
func (t *tuner) open(ctx context.Context, p *program.Program) (*build, error) {
	r, err := t.Build(ctx, p)
	if err != nil {
		return nil, err
	}
	b := &build{Runner: r, Program: p}
	for range 2 {
		d, err := r.Run()
		if err != nil {
			r.Close()
			return nil, err
		}
		if b.took == 0 || d < b.took {
			b.took = max(d, 1)
		}
	}
	return b, nil
}

// sample are the shortest times of a program's steps, in both halves of the runs.
type sample struct {
	*program.Program
	half [2][]time.Duration
	runs int
}

// both asks for the shorter of the halves.
const both = -1

// step is the time of a step in µs.
func (s *sample) step(i, half int) float64 {
	d := min(s.half[0][i], s.half[1][i])
	if half != both {
		d = s.half[half][i]
	}
	return float64(d.Nanoseconds()) / 1e3
}

// site is the time of all steps of a site.
func (s *sample) site(key string, half int) float64 {
	sum := 0.0
	for i := range s.Steps {
		if s.Steps[i].Site == key {
			sum += s.step(i, half)
		}
	}
	return sum
}

// layers is the time of all steps of some layers.
func (s *sample) layers(of map[string]bool, half int) float64 {
	sum := 0.0
	for i := range s.Steps {
		if of[s.Steps[i].Layer] {
			sum += s.step(i, half)
		}
	}
	return sum
}

// total is the time of all steps.
func (s *sample) total(half int) float64 {
	sum := 0.0
	for i := range s.Steps {
		sum += s.step(i, half)
	}
	return sum
}

// calls is the number of steps of a site.
func (s *sample) calls(key string) int {
	n := 0
	for i := range s.Steps {
		if s.Steps[i].Site == key {
			n++
		}
	}
	return n
}

// plan is how many turns each side has and how many runs in a turn. A machine
// that is busy with other things is slow and needs as many runs for that.
func plan(took time.Duration) (turns, runs int) {
	runs = int(min(max(block/took, 1), 64))
	turns = int(min(max(effort/(took*time.Duration(runs)), 8), 16))
	return turns + turns%2, runs
}

// measure traces programs in turns, some times over.
func (t *tuner) measure(ctx context.Context, times int, sides ...*build) ([]*sample, error) {
	var took time.Duration
	out := make([]*sample, len(sides))
	for i, b := range sides {
		took = max(took, b.took)
		n := len(b.Steps)
		out[i] = &sample{Program: b.Program, half: [2][]time.Duration{make([]time.Duration, n), make([]time.Duration, n)}}
	}
	turns, runs := plan(took)
	for turn := range turns * times {
		for i, b := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			t.rest()
			if runs > 1 { // what the other side left in the caches
				if err := b.Trace(make([]time.Duration, len(b.Steps))); err != nil {
					return nil, err
				}
			}
			for range runs {
				if err := b.Trace(out[i].half[turn%2]); err != nil {
					return nil, err
				}
				out[i].runs++
			}
		}
	}
	return out, nil
}

func (t *tuner) rest() {
	if t.o.Rest > 0 {
		time.Sleep(t.o.Rest)
	}
}

// attempt is a program with some changes, measured in turns with others.
type attempt struct {
	*build
	changes []candidate // those that lowering took
	samples []*sample   // of the others, then of the program
	wrong   error       // the program must not be used, and was not measured
}

// attempt makes and measures the program of some changes; nil if lowering takes
// none of them, and with an error.
func (t *tuner) attempt(ctx context.Context, changes []candidate, times int, beside ...*build) (*attempt, error) {
	p, taken, err := t.lower(changes)
	if err != nil || len(taken) == 0 {
		return nil, err
	}
	a := &attempt{changes: taken}
	var w *Wrong
	switch a.build, err = t.open(ctx, p); {
	case errors.As(err, &w):
		t.refused++
		a.wrong = err
		return a, nil
	case err != nil:
		return nil, err
	}
	if a.samples, err = t.measure(ctx, times, append(beside, a.build)...); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}
