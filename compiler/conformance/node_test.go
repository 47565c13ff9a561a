package conformance

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/internal/shared"
)

// The whole suite takes a while; -filter picks cases by a regular expression:
// go test ./compiler/conformance -run Node/eval -filter resize -v
var (
	filter = flag.String("filter", os.Getenv("LATHE_FILTER"), "regular expression on case names")
	list   = flag.Bool("list", false, "print the verdict on every case")
)

func picked(t *testing.T, root string) []Case {
	t.Helper()
	cases, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	re, err := regexp.Compile(*filter)
	if err != nil {
		t.Fatal(err)
	}
	var some []Case
	for _, c := range cases {
		if re.MatchString(c.Name) {
			some = append(some, c)
		}
	}
	return some
}

func suite(t *testing.T, folder string) {
	root := shared.Dir(t, "onnx-backend-tests", folder)
	peers, err := ReadPeers(filepath.Join(filepath.Dir(root), "peers.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	cases := picked(t, root)
	for _, r := range []struct {
		name string
		run  Runner
	}{{"eval", Eval}, {"expand", Expand}} {
		t.Run(r.name, func(t *testing.T) {
			tol := Standard
			tol.Lenient = true
			rep := Run(context.Background(), cases, r.run, Options{Backend: r.name, Tolerance: tol})
			for _, c := range rep.Cases {
				switch {
				case c.Status == Fail:
					t.Errorf("%s: %s", c.Name, c.Reason)
				case *list:
					t.Logf("%s: %s %s %v lenient %v", c.Name, c.Status, c.Reason, c.Bound, c.Lenient)
				}
			}
			var b strings.Builder
			if err := rep.WriteTable(&b, peers); err != nil {
				t.Fatal(err)
			}
			t.Logf("tolerance %+v\n%s", tol, b.String())
		})
	}
}

// TestNode runs ONNX's node cases: none may be wrong.
func TestNode(t *testing.T) { suite(t, "node") }

// TestSimple runs ONNX's simple models.
func TestSimple(t *testing.T) { suite(t, "simple") }

// TestWidened runs the node cases with narrow floats widened: the results are
// closer to exact ones, and within the same tolerance.
func TestWidened(t *testing.T) {
	cases := picked(t, shared.Dir(t, "onnx-backend-tests", "node"))
	rep := Run(context.Background(), cases, widened(Eval), Options{Backend: "eval", Tolerance: Tolerance{RTol: 1e-3, ATol: 1e-7, Lenient: true}})
	for _, c := range rep.Cases {
		if c.Status == Fail {
			t.Errorf("%s: %s", c.Name, c.Reason)
		}
	}
}
