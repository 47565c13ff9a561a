package cpu

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

var (
	filter  = flag.String("filter", "", "run only the cases that match")
	cpuName = flag.String("target-cpu", "native", "the CPU to compile for")
	table   = flag.Bool("table", false, "print the whole table")
)

func sharedDir(t *testing.T, parts ...string) string {
	t.Helper()
	root := os.Getenv("LATHE_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared")
	}
	dir := filepath.Join(append([]string{root}, parts...)...)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("shared material is absent: %v", err)
	}
	return dir
}

// native compiles each case, loads it, runs it.
func native(cache string, traits backend.Traits) conformance.Runner {
	return func(ctx context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
		x, bound, err := conformance.ExpandFor(m, s)
		if err != nil {
			return conformance.Outputs{}, err
		}
		in, err := conformance.Feed(m, s, x.Graph)
		if err != nil {
			return conformance.Outputs{}, err
		}
		p, err := compiler.Program(x.Graph, traits)
		if err != nil {
			return conformance.Outputs{}, err
		}
		dir, err := os.MkdirTemp("", "lathe-cpu-test-")
		if err != nil {
			return conformance.Outputs{}, err
		}
		defer os.RemoveAll(dir)
		if err := Build(ctx, p, dir, backend.Options{Name: "model", Traits: traits, Threads: 1, CacheDir: cache, KeepSource: os.Getenv("KEEP") != ""}); err != nil {
			return conformance.Outputs{}, err
		}
		if k := os.Getenv("KEEP"); k != "" {
			os.RemoveAll(k)
			os.CopyFS(k, os.DirFS(dir))
		}
		ses, err := Open(dir, 1)
		if err != nil {
			return conformance.Outputs{}, err
		}
		defer ses.Close()
		out := backend.NewOutputs(ses)
		if err := ses.Run(in, out); err != nil {
			return conformance.Outputs{}, err
		}
		start := time.Now()
		n := 0
		for ; n < 20 && time.Since(start) < time.Second/2; n++ {
			ses.Run(in, out)
		}
		if os.Getenv("TIMES") != "" {
			println(m.Path, time.Since(start).Microseconds()/int64(max(n, 1)), "us")
		}
		res := conformance.Outputs{Bound: bound}
		for _, o := range out {
			res.Data = append(res.Data, ir.TensorData(o))
		}
		return res, nil
	}
}

func suite(t *testing.T, dir string, tol conformance.Tolerance) {
	cases, err := conformance.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(*filter)
	var kept []conformance.Case
	for _, c := range cases {
		if re.MatchString(c.Name) {
			kept = append(kept, c)
		}
	}
	tr, err := Target(*cpuName)
	if err != nil {
		t.Fatal(err)
	}
	rep := conformance.Run(context.Background(), kept, native(t.TempDir(), tr), conformance.Options{Backend: "cpu", Tolerance: tol, Timeout: 5 * time.Minute})
	for _, c := range rep.Cases {
		if c.Status == conformance.Fail {
			t.Errorf("%s: %s %s: %s", c.Name, c.Status, c.Op, c.Reason)
		} else if *table {
			t.Logf("%s: %s %s: %s", c.Name, c.Status, c.Op, c.Reason)
		}
	}
	t.Logf("pass %d, fail %d, unsupported %d, specialized %d", rep.Pass, rep.Fail, rep.Unsupported, rep.Specialized)
}

func TestNode(t *testing.T) {
	suite(t, sharedDir(t, "onnx-backend-tests", "node"), conformance.Tolerance{RTol: 1e-3, ATol: 1e-7, Lenient: true})
}

func TestModels(t *testing.T) {
	suite(t, sharedDir(t, "models"), conformance.Tolerance{RTol: 1e-3, ATol: 1e-4, Lenient: true})
}
