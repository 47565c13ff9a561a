package csource

import (
	"errors"
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
    lately.alone = 0;
    lathe_region(count, args, n);
    for (int i = 0; i < 16; i++)
      if (atomic_load(&hits[i]) != (i < n)) { printf("round %ld: iteration %d of %d ran %u times\n", r, i, (int)n, atomic_load(&hits[i])); return 1; }
  }
  return 0;
}
`

// execute compiles C sources with the runtime beside them and runs the first.
func execute(t *testing.T, libs map[string]string, main string, args ...string) (string, error) {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("no gcc: %v", err)
	}
	dir := t.TempDir()
	files := map[string]string{"lathe_rt.h": runtimeHeader, "callers.c": callersSource, "pin.c": pinSource, "pool.c": poolSource, "main.c": includes + main}
	for name, text := range libs {
		files[name+".c"] = includes + text
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	build := func(args ...string) {
		t.Helper()
		cmd := exec.Command(cc, append([]string{"-O2", "-std=gnu11", "-w"}, append(args, "-lpthread", "-ldl", "-lm")...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for name := range libs {
		build("-shared", "-fPIC", "-o", name+".so", name+".c")
	}
	build("-o", "main", "main.c")
	cmd := exec.Command(filepath.Join(dir, "main"), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPoolRunsEachIterationOnce(t *testing.T) {
	if out, err := execute(t, nil, hurry, "300000"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// library is what an artifact does when it is loaded, and what a test asks it.
const library = `
#define LATHE_THREADS 4
#define LATHE_CPUS 8
#define LATHE_SCRATCH 64
#include "callers.c"
#include "pin.c"
#include "pool.c"
__attribute__((constructor)) static void begin(void) { meet(); }
__attribute__((destructor)) static void end(void) { stop_workers(); if (first) dlclose(first); }
API void *common(void) { return process; }
API void enter(int n) { atomic_fetch_add(&process->callers, n); }
API int extra(void) { return helpers(); }
`

// Libraries that are loaded apart count their callers together, also when the
// first of them is closed: of 8 CPUs one caller has 3 helpers of 4 threads, two
// callers have 3 each, four have 1, five and more none.
func TestCallersOfAllLibraries(t *testing.T) {
	const main = `
static void *open_one(const char *name, void *(**common)(void), void (**enter)(int), int (**extra)(void)) {
  void *h = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!h) { puts(dlerror()); exit(1); }
  *common = dlsym(h, "common"); *enter = dlsym(h, "enter"); *extra = dlsym(h, "extra");
  return h;
}
int main(void) {
  void *(*ca)(void), *(*cb)(void), *(*cc)(void); void (*ea)(int), (*eb)(int), (*ec)(int); int (*xa)(void), (*xb)(void), (*xc)(void);
  void *a = open_one("./a.so", &ca, &ea, &xa), *b = open_one("./b.so", &cb, &eb, &xb);
  if (ca() != cb()) { puts("two counts"); return 1; }
  ea(1); printf("%d ", xb());
  eb(1); printf("%d %d ", xa(), xb());
  eb(2); printf("%d ", xa());
  ea(1); printf("%d ", xb());
  ea(-2); dlclose(a); printf("%d ", xb());
  void *c = open_one("./c.so", &cc, &ec, &xc);
  if (cb() != cc()) { puts("two counts after a close"); return 1; }
  ec(-3); printf("%d\n", xc());
  dlclose(b); dlclose(c);
  return 0;
}`
	out, err := execute(t, map[string]string{"a": library, "b": library, "c": library}, main)
	if err != nil || out != "3 3 3 1 0 1 3\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// Pinned threads run where they are told, callers too; a list without a CPU of
// the process is refused, and so is nonsense.
func TestPins(t *testing.T) {
	const main = `
#define LATHE_THREADS 2
#define LATHE_SCRATCH 64
#include "callers.c"
#include "pin.c"
#include "pool.c"
static int where[2];
static void look_around(void *const *a, i64 lo, i64 hi) { for (i64 i = lo; i < hi; i++) where[!!lathe_scratch && lathe_scratch != a[0]] = sched_getcpu() + 1; }
int main(void) {
  static char scratch[256];
  int last = 0;
  meet();
  for (int c = 0; c < CPU_SETSIZE; c++) if (CPU_ISSET(c, &process->may)) last = c;
  char list[32];
  snprintf(list, sizeof list, "%d", last);
  for (const char **s = (const char *[]){"x", "-1", "1-", "3-2", "0,,1", "99999", "1023", 0}; *s; s++)
    if (!set_pins(*s) && !(CPU_ISSET(1023, &process->may))) { printf("%s was taken\n", *s); return 1; }
  if (set_pins("off") || set_pins(0) || pins.n) return 2;
  if (set_pins("auto") || pins.n != CPU_COUNT(&process->may)) return 3;
  if (set_pins(list) || pins.n != 1) return 4;
  pin_caller();
  lathe_scratch = scratch;
  void *args[] = {scratch};
  if (sched_getcpu() != last) return 5;
  if (usable_cpus() > CPU_COUNT(&process->may)) return 6;
  for (int i = 0; i < 1000; i++) lathe_region(look_around, args, 64);
  for (int i = 0; i < 2; i++) if (where[i] && where[i] != last + 1) return 7;
  return 0;
}`
	if out, err := execute(t, nil, main); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A worker that the system puts on its caller's CPU leaves it: here it inherits
// the caller's only one.
func TestWorkersLeaveTheCallersCPU(t *testing.T) {
	const main = `
#define LATHE_THREADS 2
#define LATHE_CPUS 2
#define LATHE_SCRATCH 64
#include "callers.c"
#include "pin.c"
#include "pool.c"
static atomic_int apart, together;
static void look_around(void *const *a, i64 lo, i64 hi) {
  for (volatile int i = 0; i < 20000; i++) {}
  if (lathe_scratch != a[0]) atomic_fetch_add(sched_getcpu() + 1 == place[0] ? &together : &apart, 1);
}
int main(void) {
  static char scratch[256];
  void *args[] = {scratch};
  meet();
  if (CPU_COUNT(&process->may) < 2) return 77;
  pin_to(sched_getcpu());
  lathe_scratch = scratch;
  for (int i = 0; i < 20000 && apart < 100; i++) { lately.alone = 0; lathe_region(look_around, args, 8); }
  printf("%d chunks on the caller's CPU, %d on another", together, apart);
  stop_workers();
  return apart < 100 || together > 0;
}`
	out, err := execute(t, nil, main)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip("one CPU")
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A child of fork runs regions without the parent's workers.
func TestFork(t *testing.T) {
	const main = `
#define LATHE_THREADS 3
#define LATHE_CPUS 3
#define LATHE_SCRATCH 64
#include "callers.c"
#include "pin.c"
#include "pool.c"
#include <sys/wait.h>
static void count(void *const *a, i64 lo, i64 hi) { atomic_fetch_add((_Atomic u32 *)a[0], (u32)(hi - lo)); }
int main(void) {
  static char scratch[256];
  static _Atomic u32 n;
  void *args[] = {(void *)&n};
  lathe_scratch = scratch;
  pthread_atfork(0, 0, pool_child);
  for (int i = 0; i < 1000; i++) lathe_region(count, args, 16);
  pid_t child = fork();
  for (int i = 0; i < 1000; i++) lathe_region(count, args, 16);
  if (n != 32000) return 1;
  if (!child) { stop_workers(); _exit(0); }
  int status;
  waitpid(child, &status, 0);
  stop_workers();
  return status != 0;
}`
	if out, err := execute(t, nil, main); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
