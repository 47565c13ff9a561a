package tune_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/search/tune"
)

var target = schedule.Target{CPU: "test", Threads: 1, Precision: "f32"}

func (l *landscape) subject() tune.Subject { return tune.Subject{Program: l.program, Build: l.build} }

func search(t *testing.T, l *landscape, o tune.Options) *tune.Result {
	t.Helper()
	o.Target = target
	r, err := tune.Run(context.Background(), l.subject(), o)
	if err != nil {
		t.Fatal(err)
	}
	if l.open != 0 {
		t.Errorf("%d programs were left open", l.open)
	}
	return r
}

// TestOptimum holds that the search comes to the known optimum, with clear
// times and with noisy ones, and that what the book then gives is just that.
func TestOptimum(t *testing.T) {
	for _, c := range []struct{ noise, near float64 }{{0, 1.001}, {0.05, 1.02}, {0.5, 1.05}} {
		l := valley(c.noise)
		book := &schedule.Book{}
		r := search(t, l, tune.Options{Book: book, Rounds: 120})
		before, after, best := l.time(nil), l.time(r.Picks), l.optimum()
		t.Logf("noise %v: %.0f µs before, %.0f after %d rounds and %d trials in %d programs, the optimum is %.0f",
			c.noise, before, after, r.Rounds, r.Trials, l.builds, best)
		if after > best*c.near || before < 1.2*best {
			t.Errorf("noise %v: %.1f µs, the optimum is %.1f: %v", c.noise, after, best, r.Picks)
		}
		if _, ok := r.Picks["site5"]; ok {
			t.Errorf("noise %v: the heuristic's choice at site5 was left: %v", c.noise, r.Picks)
		}
		look := book.Lookup(target)
		for _, s := range r.Sites {
			got, _ := look(s.Key)
			if got != r.Picks[s.Key] {
				t.Errorf("noise %v: the book says %q at %s, the result %q", c.noise, got, s.Key, r.Picks[s.Key])
			}
		}
	}
}

// TestFlat holds that noise alone is no gain.
func TestFlat(t *testing.T) {
	l := valley(0.3)
	for i := range l.sites {
		s := &l.sites[i]
		s.best, s.forms = schedule.Choice{Form: "a", OB: 1, TW: 8, Prefetch: 1}, map[string]float64{"a": 1, "b": 1}
	}
	book := &schedule.Book{}
	r := search(t, l, tune.Options{Book: book, Rounds: 80})
	for key, c := range r.Picks {
		if cost := l.sites[key[4]-'0'].cost(c) / l.sites[key[4]-'0'].us; cost > 1 {
			t.Errorf("%s: %q is %.2f times slower than the heuristic", key, c, cost)
		}
	}
}

// TestDeterministic holds that the same measurements give the same result.
func TestDeterministic(t *testing.T) {
	var want []byte
	for range 2 {
		book := &schedule.Book{}
		r := search(t, valley(0.2), tune.Options{Book: book, Rounds: 25, Seed: 9})
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got := append(text, book.Bytes()...)
		if want != nil && !bytes.Equal(got, want) {
			t.Errorf("two searches differ:\n%s\n%s", want, got)
		}
		want = got
	}
}

// TestResume holds that a search that was cut off at any round goes on from
// the saved book: what was measured is not measured again.
func TestResume(t *testing.T) {
	l := valley(0)
	var saved []byte
	opts := tune.Options{Target: target, Book: &schedule.Book{}, Save: func(b *schedule.Book) error { saved = b.Bytes(); return nil }}
	ctx, cancel := context.WithCancel(context.Background())
	opts.Round = func(s tune.Status) {
		if s.Round == 12 {
			cancel()
		}
	}
	r, err := tune.Run(ctx, l.subject(), opts)
	if !errors.Is(err, context.Canceled) || r == nil || r.Stopped != "interrupted" || r.Rounds != 12 {
		t.Fatalf("%+v, %v", r, err)
	}
	if l.open != 0 {
		t.Errorf("%d programs were left open", l.open)
	}
	first := l.time(r.Picks)
	if first >= l.time(nil) {
		t.Fatalf("nothing was found in 12 rounds")
	}
	book, bad, err := schedule.Read(bytes.NewReader(saved))
	if err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	measured := map[string]bool{}
	for _, x := range book.Records() {
		measured[x.Key+x.Schedule] = true
	}
	again := valley(0)
	r2 := search(t, again, tune.Options{Book: book, Rounds: 108})
	if us := again.time(r2.Picks); us > again.optimum()*1.001 || us > first {
		t.Errorf("%.1f µs after the second search, %.1f after the first, the optimum is %.1f", us, first, again.optimum())
	}
	// Each choice of the first search may be built again as a part of the
	// incumbent, and not as a trial: those are what the heuristic and the picks
	// do not have.
	repeated := 0
	for key, choices := range again.lowered {
		for c := range choices {
			if measured[key+c.String()] && r.Picks[key] != c {
				repeated++
			}
		}
	}
	if repeated > 0 {
		t.Errorf("%d choices were measured again", repeated)
	}
}

// TestWrong holds that a choice that makes wrong programs is found among the
// others of its round, never kept, and does not keep others from winning.
func TestWrong(t *testing.T) {
	l := valley(0)
	l.wrong = schedule.Choice{OB: 4}
	r := search(t, l, tune.Options{Rounds: 120})
	for key, c := range r.Picks {
		if c.OB == 4 {
			t.Errorf("%s: %q is wrong", key, c)
		}
	}
	if r.Refused == 0 || len(r.Wrong) == 0 || l.time(r.Picks) > 0.8*l.time(nil) {
		t.Errorf("refused %d, %.1f µs of %.1f: %v", r.Refused, l.time(r.Picks), l.time(nil), r.Wrong)
	}
}

// TestStale holds that records which no longer help are taken back.
func TestStale(t *testing.T) {
	l := valley(0)
	book := &schedule.Book{}
	slow := schedule.Record{Key: "site5", Target: target, Space: schedule.SpaceVersion, Schedule: "form=a ob=1 tw=1 prefetch=1", Micros: 1, Heuristic: 2, Runs: 5, Kept: true}
	good := schedule.Record{Key: "site0", Target: target, Space: schedule.SpaceVersion, Schedule: "form=a ob=4 tw=5 prefetch=1024", Micros: 1, Heuristic: 2, Runs: 5, Kept: true}
	odd := schedule.Record{Key: "site1", Target: target, Space: schedule.SpaceVersion, Schedule: "form=none", Micros: 1, Heuristic: 2, Runs: 5, Kept: true}
	for _, r := range []schedule.Record{slow, good, odd} {
		book.Add(r)
	}
	r := search(t, l, tune.Options{Book: book, Rounds: 1})
	look := book.Lookup(target)
	if c, ok := look("site5"); ok {
		t.Errorf("site5 keeps %q, which is slower", c)
	}
	if c, _ := look("site0"); c.String() != good.Schedule || r.Picks["site0"] != c {
		t.Errorf("site0 has %q, want %q", c, good.Schedule)
	}
}

// TestTime holds that a search ends when its time is up, and that this is no
// error.
func TestTime(t *testing.T) {
	l := valley(0)
	r := search(t, l, tune.Options{Until: time.Now().Add(-time.Second)})
	if r.Stopped != "time" || r.Rounds != 0 || r.Ratio != 1 || len(r.Sites) != len(l.sites) {
		t.Errorf("%+v", r)
	}
	r = search(t, valley(0), tune.Options{Rounds: 100000})
	if r.Stopped != "nothing left" {
		t.Errorf("stopped: %s after %d rounds", r.Stopped, r.Rounds)
	}
}

// TestFailures holds that errors which are not of one program end the search
// with them.
func TestFailures(t *testing.T) {
	broken := errors.New("no space")
	l := valley(0)
	s := l.subject()
	build := s.Build
	s.Build = func(ctx context.Context, p *program.Program) (tune.Runner, error) {
		if l.builds > 3 {
			return nil, broken
		}
		return build(ctx, p)
	}
	if _, err := tune.Run(context.Background(), s, tune.Options{Target: target}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := tune.Run(context.Background(), valley(0).subject(), tune.Options{Target: target, Save: func(*schedule.Book) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
