package csource

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// hurry runs regions of nothing, of few and of many iterations in turn: what a
// worker does late in one region falls into the next. Each iteration of each
// region must run exactly once, before region returns.
const hurry = `
#define LATHE_THREADS 4
#define LATHE_CPUS 4
#define LATHE_SCRATCH 64
#include "callers.c"
#include "pin.c"
#include "pool.c"

static _Atomic u32 hits[16];
static void count(void *const *args, i64 lo, i64 hi) {
  for (i64 i = lo; i < hi; i++) atomic_fetch_add((_Atomic u32 *)args[0] + i, 1);
}

int main(int argc, char **argv) {
  static char scratch[64 * 64];
  long rounds = atol(argv[1]);
  lathe_scratch = scratch;
  for (long r = 0; r < rounds; r++) {
    i64 n = (r & 1) ? 16 : 2;
    void *args[] = {(void *)hits};
    for (int i = 0; i < 16; i++) atomic_store(&hits[i], 0);
    lathe_region(count, args, n);
    for (int i = 0; i < 16; i++)
      if (atomic_load(&hits[i]) != (i < n)) { printf("round %ld: iteration %d of %d ran %u times\n", r, i, (int)n, atomic_load(&hits[i])); return 1; }
  }
  return 0;
}
`

func TestPoolRunsEachIterationOnce(t *testing.T) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("no gcc: %v", err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"lathe_rt.h": runtimeHeader, "model.h": "", "callers.c": callersSource, "pin.c": pinSource, "pool.c": poolSource, "hurry.c": includes + hurry} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	exe := filepath.Join(dir, "hurry")
	if out, err := exec.Command(cc, "-O2", "-std=gnu11", "-w", "-o", exe, filepath.Join(dir, "hurry.c"), "-lpthread", "-ldl", "-lm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(exe, "300000").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
