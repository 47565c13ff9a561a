package cpu_test

import (
	"context"
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/emulate"
)

var (
	filter  = flag.String("filter", "", "run only the cases that match")
	cpuName = flag.String("cpu", "native", "the CPU to compile for")
	table   = flag.Bool("table", false, "print the whole table")
)

// suite compiles each case, loads it and runs it. The environment variable KEEP
// names a folder for the last artifact, TIMES asks for the time of a run.
func suite(t *testing.T, dir string, tol conformance.Tolerance) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	be := cpu.Backend()
	if tr, err := cpu.Target(*cpuName); err == nil && tr.Arch == "arm64" && runtime.GOARCH != "arm64" {
		emulate.Need(t)
		be = emulated(t, "")
	}
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
	o := backendtest.Options{CPU: *cpuName, Threads: 1, CacheDir: t.TempDir()}
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

func TestNode(t *testing.T) {
	suite(t, backendtest.Shared(t, "onnx-backend-tests", "node"), backendtest.Node)
}

func TestModels(t *testing.T) {
	suite(t, backendtest.Shared(t, "models"), backendtest.Model)
}
