package portable_test

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

var (
	filter = flag.String("filter", "", "run only the cases that match")
	table  = flag.Bool("table", false, "print every case")
	times  = flag.Bool("times", false, "time each model")
)

// TestNode runs every node case. All of them take seconds.
func TestNode(t *testing.T) {
	s := backendtest.Suite{Dir: backendtest.Shared(t, "onnx-backend-tests", "node"), Filter: *filter, Tolerance: backendtest.Node, Timeout: 5 * time.Minute, Verbose: *table}
	s.Test(t, portable.Backend(), backendtest.Options{Threads: 2})
}

// TestModels runs the recorded data of the shared models. Those of light/ have
// constant weights and say little; they run with -filter.
func TestModels(t *testing.T) {
	f := *filter
	if f == "" {
		f = "^[^l]"
	}
	o := backendtest.Options{Threads: 2}
	if *times {
		o.Ran = func(m *onnxfile.Model, s backend.Session, in, out []*tensor.Tensor) {
			start := time.Now()
			if err := s.Run(in, out); err != nil {
				t.Error(err)
			}
			p := strings.Split(m.Path, "/")
			t.Logf("%s: %s", strings.Join(p[max(0, len(p)-3):], "/"), time.Since(start))
		}
	}
	s := backendtest.Suite{Dir: backendtest.Shared(t, "models"), Filter: f, Tolerance: backendtest.Model, Timeout: 5 * time.Minute, Verbose: *table}
	s.Test(t, portable.Backend(), o)
}
