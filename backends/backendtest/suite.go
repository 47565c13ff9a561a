package backendtest

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/internal/shared"
)

// Shared gives a folder of the shared material; the test is skipped if it is
// absent.
func Shared(t testing.TB, parts ...string) string {
	t.Helper()
	return shared.Dir(t, parts...)
}

// Suite is a tree of recorded cases that a backend must pass.
type Suite struct {
	Dir       string
	Filter    string // a regular expression on names; "" keeps all
	Every     int    // keep every n-th case that matches; 0 or 1 keeps all
	Tolerance conformance.Tolerance
	Timeout   time.Duration
	Verbose   bool // log every case, not only failures
}

// Test runs a suite on a backend and fails for each case that does.
func (s Suite) Test(t *testing.T, be backend.Backend, o Options) *conformance.Report {
	t.Helper()
	cases, err := conformance.Discover(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(s.Filter)
	var kept []conformance.Case
	n := 0
	for _, c := range cases {
		if !re.MatchString(c.Name) {
			continue
		}
		if n%max(s.Every, 1) == 0 {
			kept = append(kept, c)
		}
		n++
	}
	rep := conformance.Run(context.Background(), kept, Runner(be, o), conformance.Options{Backend: be.Name, Tolerance: s.Tolerance, Timeout: s.Timeout})
	for _, c := range rep.Cases {
		if c.Status == conformance.Fail {
			t.Errorf("%s: %s %s: %s", c.Name, c.Status, c.Op, c.Reason)
		} else if s.Verbose {
			t.Logf("%s: %s %s: %s (%s)", c.Name, c.Status, c.Op, c.Reason, c.Took.Round(time.Millisecond))
		}
	}
	t.Logf("pass %d, fail %d, unsupported %d, specialized %d, lenient %d", rep.Pass, rep.Fail, rep.Unsupported, rep.Specialized, rep.Lenient)
	if rep.Pass == 0 && len(kept) > 0 {
		t.Error("no case passed")
	}
	return rep
}

// Node and Model are the tolerances of ONNX's node cases and of whole networks.
var (
	Node  = conformance.Tolerance{RTol: 1e-3, ATol: 1e-7, Lenient: true}
	Model = conformance.Tolerance{RTol: 1e-3, ATol: 1e-4, Lenient: true}
)
