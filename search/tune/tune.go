package tune

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// Subject is what is tuned.
type Subject struct {
	// Program lowers the model with recorded choices and lists the neighbours of
	// every site.
	Program func(schedule.Lookup) (*program.Program, error)
	// Build makes a program ready to run. A *Wrong error says that the program
	// must not be used, and nothing about others.
	Build func(context.Context, *program.Program) (Runner, error)
}

// Runner is a program that is ready to run.
type Runner interface {
	// Run runs once and tells how long it took.
	Run() (time.Duration, error)
	// Trace runs once and lowers each entry of best to the time of its step, if
	// that was shorter or the entry is 0.
	Trace(best []time.Duration) error
	Close()
}

// Wrong is the error of a program that cannot be built or computes something
// else than the heuristic's.
type Wrong struct{ Err error }

func (w *Wrong) Error() string { return w.Err.Error() }

// Unwrap gives the cause.
func (w *Wrong) Unwrap() error { return w.Err }

// Options say how to search. The same options and the same times give the same
// result.
type Options struct {
	Target schedule.Target
	Lathe  string         // version that records are marked with
	Book   *schedule.Book // what is known; measurements are added
	Seed   uint64
	Rounds int       // 0: no limit
	Until  time.Time // no search after this; zero: no limit
	// Rest is how long a program's threads spin after a run: the other side waits
	// for them.
	Rest time.Duration
	// Save, if not nil, is called after every round that measured something.
	Save func(*schedule.Book) error
	// Round, if not nil, is called after every round.
	Round func(Status)
}

// Status is how far a search is.
type Status struct {
	Round, Trials int
	Ratio         float64 // time over the heuristic's
}

// Site is what became of a site.
type Site struct {
	Key       string  `json:"key"`
	Calls     int     `json:"calls"` // kernels of a run
	Heuristic string  `json:"heuristic"`
	Schedule  string  `json:"schedule"`
	Before    float64 `json:"before_us"`
	After     float64 `json:"after_us"`
	Tried     int     `json:"tried"`
}

// Total is the time of a run: of whole runs, and the sum of the shortest times
// of all steps, which a busy machine disturbs least.
type Total struct {
	Steps    float64 `json:"steps_us"`
	Shortest float64 `json:"min_us"`
	Median   float64 `json:"median_us"`
}

// Result is what a search gives.
type Result struct {
	Picks   map[string]schedule.Choice `json:"-"`
	Sites   []Site                     `json:"sites"` // by time, the longest first
	Before  Total                      `json:"before"`
	After   Total                      `json:"after"`
	Ratio   float64                    `json:"ratio"` // of the steps' times, after to before
	Rounds  int                        `json:"rounds"`
	Trials  int                        `json:"trials"`
	Refused int                        `json:"refused"` // programs that were wrong
	Stopped string                     `json:"stopped"` // time, rounds, nothing left, or interrupted
	Wrong   []string                   `json:"wrong,omitempty"`
}

// tuner is a search.
type tuner struct {
	Subject
	o       Options
	rng     *rand.Rand
	base    *build // the heuristic's program
	inc     *build // the best so far
	picks   map[string]schedule.Choice
	sites   map[string]*site
	order   []*site
	waiting []candidate // changes that would have met others in a layer
	trials  int
	rounds  int
	ratio   float64
	refused int
	wrong   []string
}

// Run searches until the time is up, the rounds are done, nothing is left to
// try, or ctx ends; the last gives the result with ctx's error.
func Run(ctx context.Context, s Subject, o Options) (*Result, error) {
	if o.Book == nil {
		o.Book = &schedule.Book{}
	}
	t := &tuner{Subject: s, o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x7a75)), picks: map[string]schedule.Choice{}, sites: map[string]*site{}, ratio: 1}
	p, err := t.Program(t.lookup(nil))
	if err != nil {
		return nil, err
	}
	if t.base, err = t.open(ctx, p); err != nil {
		return nil, err
	}
	defer t.base.Close()
	t.inc = t.base
	defer func() { t.adopt(t.base) }()
	t.start()
	within, cancel := ctx, func() {}
	if !o.Until.IsZero() {
		within, cancel = context.WithDeadline(ctx, o.Until)
	}
	defer cancel()
	stopped, err := t.search(within)
	switch {
	case ctx.Err() != nil:
		stopped = "interrupted"
	case within.Err() != nil:
		stopped = "time"
	case err != nil:
		return nil, err
	}
	r, err := t.finish(ctx)
	if r == nil {
		return nil, err
	}
	r.Stopped = stopped
	return r, errors.Join(err, ctx.Err())
}

// start makes the sites, with what the book knows of them.
func (t *tuner) start() {
	for _, s := range t.base.Sites {
		q := newSite(s)
		t.sites[s.Key] = q
		t.order = append(t.order, q)
	}
	for _, r := range t.o.Book.Records() {
		q := t.sites[r.Key]
		if q == nil || r.Stale() || r.Target != t.o.Target {
			continue
		}
		if c, err := schedule.Parse(r.Schedule); err == nil {
			q.learn(c, r.Ratio())
		}
	}
}

// search does rounds.
func (t *tuner) search(ctx context.Context) (string, error) {
	if err := t.warm(ctx); err != nil {
		return "", err
	}
	for {
		if err := t.save(); err != nil {
			return "", err
		}
		if t.o.Round != nil {
			t.o.Round(Status{t.rounds, t.trials, t.ratio})
		}
		if t.o.Rounds > 0 && t.rounds >= t.o.Rounds {
			return "rounds", nil
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		batch := t.batch()
		if len(batch) == 0 {
			return "nothing left", nil
		}
		t.rounds++
		won, err := t.trial(ctx, batch)
		if err == nil {
			err = t.confirm(ctx, won)
		}
		if err != nil {
			return "", errors.Join(err, t.save())
		}
	}
}

func (t *tuner) save() error {
	if t.o.Save == nil || t.trials == 0 {
		return nil
	}
	return t.o.Save(t.o.Book)
}

// lookup gives the incumbent's choices with some changes.
func (t *tuner) lookup(changes []candidate) schedule.Lookup {
	return func(key string) (schedule.Choice, bool) {
		for _, c := range changes {
			if c.key == key {
				return c.Choice, true
			}
		}
		c, ok := t.picks[key]
		return c, ok
	}
}

// lower makes the program of some changes, without those that are not taken.
func (t *tuner) lower(changes []candidate) (*program.Program, []candidate, error) {
	for {
		p, err := t.Program(t.lookup(changes))
		if err != nil {
			return nil, nil, err
		}
		taken := map[string]bool{}
		for _, s := range p.Sites {
			taken[s.Key] = s.Recorded
		}
		legal := slices.DeleteFunc(slices.Clone(changes), func(c candidate) bool { return !taken[c.key] })
		if len(legal) == len(changes) {
			return p, changes, nil
		}
		for _, c := range changes {
			if !taken[c.key] {
				t.sites[c.key].refuse(c.Choice)
			}
		}
		changes = legal
	}
}
