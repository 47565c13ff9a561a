package cpu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/emulate"
)

// feeder is a C program as a user would write one: it loads the artifact beside
// it, reads in0, in1, …, runs the model and writes out0, out1, ….
const feeder = `
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void *lib;
static void *f(const char *name) { void *p = dlsym(lib, name); if (!p) { puts(dlerror()); exit(1); } return p; }
int main(int argc, char **argv) {
  char name[4096];
  void *in[256], *out[256];
  long size[256];
  snprintf(name, sizeof name, "%s/libmodel.so", argv[1]);
  if (!(lib = dlopen(name, RTLD_NOW))) { puts(dlerror()); return 1; }
  int (*inputs)(void) = f("model_input_count"), (*outputs)(void) = f("model_output_count");
  const char *(*error)(void) = f("model_error");
  size_t (*workspace)(void) = f("model_workspace_size");
  int (*run)(const void *const *, void *const *, void *) = f("model_run");
  void (*set_threads)(int) = f("model_set_threads");
  if (argc > 2) set_threads(atoi(argv[2]));
  for (int i = 0; i < inputs(); i++) {
    snprintf(name, sizeof name, "%s/in%d", argv[1], i);
    FILE *h = fopen(name, "rb");
    fseek(h, 0, SEEK_END);
    long n = ftell(h);
    rewind(h);
    in[i] = malloc(n + 1);
    if (fread(in[i], 1, n, h) != (size_t)n) return 1;
    fclose(h);
  }
  for (int i = 0; i < outputs(); i++) {
    size[i] = atol(argv[3 + i]);
    out[i] = malloc(size[i] + 1);
  }
  void *ws = aligned_alloc(64, workspace() + 64 & ~(size_t)63);
  for (int r = 0; r < 2; r++)
    if (run((const void *const *)in, out, ws)) { puts(error()); return 1; }
  for (int i = 0; i < outputs(); i++) {
    snprintf(name, sizeof name, "%s/out%d", argv[1], i);
    FILE *h = fopen(name, "wb");
    if (fwrite(out[i], 1, size[i], h) != (size_t)size[i]) return 1;
    fclose(h);
  }
  return 0;
}
`

// emulated is the cpu backend for arm64, whose artifacts run under emulation.
func emulated(t *testing.T, model string) backend.Backend {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "feeder")
	if err := os.WriteFile(exe+".c", []byte(feeder), 0o666); err != nil {
		t.Fatal(err)
	}
	emulate.Build(t, exe, "-O1", "-w", exe+".c", "-ldl")
	be := cpu.Backend()
	be.Open = func(dir string, threads int) (backend.Session, error) {
		m, err := artifact.Read(dir)
		if err != nil {
			return nil, err
		}
		s := &emulatedSession{dir: dir, exe: exe, model: model, threads: max(threads, 1)}
		if s.in, err = artifact.Ports(m.Inputs); err != nil {
			return nil, err
		}
		s.out, err = artifact.Ports(m.Outputs)
		return s, err
	}
	return be
}

type emulatedSession struct {
	dir, exe, model string
	threads         int
	in, out         []program.Port
}

func (s *emulatedSession) Inputs() []program.Port  { return s.in }
func (s *emulatedSession) Outputs() []program.Port { return s.out }
func (s *emulatedSession) Close() error            { return nil }

func (s *emulatedSession) Run(in, out []*tensor.Tensor) error {
	for i, x := range in {
		if err := os.WriteFile(filepath.Join(s.dir, fmt.Sprint("in", i)), x.Bytes(), 0o666); err != nil {
			return err
		}
	}
	args := []string{s.dir, fmt.Sprint(s.threads)}
	for _, y := range out {
		args = append(args, fmt.Sprint(len(y.Bytes())))
	}
	if text, err := emulate.Run(s.model, s.exe, args...); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	for i, y := range out {
		b, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprint("out", i)))
		if err != nil {
			return err
		}
		copy(y.Bytes(), b)
	}
	return nil
}

// armCases are conformance cases of each family of kernels.
const armCases = `^test_(conv_with_strides_padding|convtranspose|matmul_3d|gemm_all_attributes|softmax_axis_1|layer_normalization_2d_axis1|gelu_tanh_2|` +
	`maxpool_2d_pads|averagepool_2d_ceil|resize_upsample_scales_linear|gather_1|lstm_defaults|qlinearconv|dynamicquantizelinear|cast_FLOAT_to_FLOAT16|topk|erf|cumsum_1d)$`

// TestArm builds for arm64 on whatever machine this is and runs the artifacts
// as a C program does: cases of every family of kernels, random graphs beside
// the evaluator, and the model that ships, with one and two threads.
func TestArm(t *testing.T) {
	emulate.Need(t)
	o := backendtest.Options{CPU: "aarch64", Threads: 1, CacheDir: t.TempDir()}
	t.Run("digits", func(t *testing.T) {
		s := backendtest.Suite{Dir: filepath.Join("..", "..", "testdata", "models"), Tolerance: backendtest.Model, Timeout: time.Minute}
		s.Test(t, emulated(t, "cortex-a53"), o)
		two := o
		two.CPU, two.Threads = "neoverse-n1", 2
		s.Test(t, emulated(t, "neoverse-n1"), two)
	})
	t.Run("random", func(t *testing.T) {
		be := emulated(t, "cortex-a72")
		for _, seed := range []uint64{2, 3, 32, 83} {
			r, err := backendtest.RandomGraph(seed, 14)
			if err != nil {
				t.Fatal(err)
			}
			if err := backendtest.CheckRandom(t.Context(), be, o, r); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	})
	t.Run("cases", func(t *testing.T) {
		s := backendtest.Suite{Dir: backendtest.Shared(t, "onnx-backend-tests", "node"), Filter: armCases, Tolerance: backendtest.Node, Timeout: time.Minute}
		if rep := s.Test(t, emulated(t, "cortex-a53"), o); rep.Pass < 12 {
			t.Errorf("only %d cases passed", rep.Pass)
		}
	})
}

// A CPU without what the code needs gets a sentence, not a signal.
func TestArmRefuses(t *testing.T) {
	emulate.Need(t)
	r, err := backendtest.RandomGraph(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	_, err = backendtest.Run(t.Context(), emulated(t, "cortex-a53"), backendtest.Options{CPU: "neoverse-n1", CacheDir: t.TempDir()}, r.Graph, r.Inputs)
	if err == nil || !strings.Contains(err.Error(), "the code is for neoverse-n1 and needs dotprod, which this CPU does not have") {
		t.Errorf("got %v", err)
	}
}
