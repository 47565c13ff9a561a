package cpu_test

import (
	"cmp"
	"context"
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/emulate"
)

var (
	filter  = flag.String("filter", "", "run only the cases that match")
	cpuName = flag.String("cpu", "native", "the CPU to compile for")
	mode    = flag.String("precision", "", "run the cases in this precision and for -cpu only")
	table   = flag.Bool("table", false, "print the whole table")
)

// suite compiles each case, loads it and runs it. The environment variable KEEP
// names a folder for the last artifact, TIMES asks for the time of a run.
func suite(t *testing.T, be backend.Backend, v variant, cache, dir string, tol conformance.Tolerance) {
	if k := os.Getenv("KEEP"); k != "" {
		build := be.Build
		be.Build = func(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
			o.KeepSource = true
			if err := build(ctx, p, dir, o); err != nil {
				return err
			}
			if err := os.RemoveAll(k); err != nil {
				return err
			}
			return os.CopyFS(k, os.DirFS(dir))
		}
	}
	o := backendtest.Options{CPU: v.cpu, Threads: 1, CacheDir: cache, Lower: compiler.Options{Precision: v.mode}}
	if v.byLayer() {
		o.Error = v.mode.Bound()
	}
	if os.Getenv("TIMES") != "" {
		o.Ran = func(m *onnxfile.Model, s backend.Session, in, out []*tensor.Tensor) {
			start, n := time.Now(), 0
			for ; n < 20 && time.Since(start) < time.Second/2; n++ {
				if err := s.Run(in, out); err != nil {
					t.Error(err)
				}
			}
			t.Logf("%s: %d us", m.Path, time.Since(start).Microseconds()/int64(max(n, 1)))
		}
	}
	s := backendtest.Suite{Dir: dir, Filter: *filter, Tolerance: tol, Timeout: 5 * time.Minute, Verbose: *table}
	s.Test(t, be, o)
}

// inVariants runs a suite in each variant, or in the one of the flags.
func inVariants(t *testing.T, tol conformance.Tolerance, parts ...string) {
	dir := backendtest.Shared(t, parts...)
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	wanted, be := variants, cpu.Backend()
	if *cpuName != "native" || *mode != "" {
		m, err := precision.Parse(cmp.Or(*mode, precision.F32.String()))
		if err != nil {
			t.Fatal(err)
		}
		wanted = []variant{{*cpuName, m}}
		if tr, err := cpu.Target(*cpuName); err == nil && tr.Arch == "arm64" && runtime.GOARCH != "arm64" {
			emulate.Need(t)
			be = emulated(t, "")
		}
	}
	be, reused := reusing(t, be)
	cache, networks := t.TempDir(), tol == backendtest.Model
	for _, v := range wanted {
		if networks && v.byLayer() {
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			if why := v.lacking(t); why != "" && len(wanted) > 1 {
				t.Skip(why)
			}
			before := reused()
			suite(t, be, v, cache, dir, v.tolerance(t, tol))
			t.Logf("%d artifacts are those of a variant before", reused()-before)
		})
	}
}

func TestNode(t *testing.T) { inVariants(t, backendtest.Node, "onnx-backend-tests", "node") }

func TestModels(t *testing.T) { inVariants(t, backendtest.Model, "models") }
