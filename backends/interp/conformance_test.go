package interp_test

import (
	"flag"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/interp"
)

var (
	filter = flag.String("filter", "", "run only the cases that match")
	all    = flag.Bool("all", false, "run every node case, not every fourth")
	table  = flag.Bool("table", false, "print every case")
)

func TestNode(t *testing.T) {
	s := backendtest.Suite{Dir: backendtest.Shared(t, "onnx-backend-tests", "node"), Filter: *filter, Every: 4, Tolerance: backendtest.Node, Timeout: 5 * time.Minute, Verbose: *table}
	if *all || *filter != "" {
		s.Every = 1
	}
	s.Test(t, interp.Backend(), backendtest.Options{})
}
