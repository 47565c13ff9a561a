/* What the functions of model.h do. */
static const char *W;

static int load_weights(const char *path) {
  char beside[4096];
  struct stat st;
  if (W || !lathe_artifact.weights) return 0;
  if (!path) {
    Dl_info d;
    const char *slash;
    if (!dladdr((void *)load_weights, &d) || !d.dli_fname) { say("the library's place is not known"); return 1; }
    slash = strrchr(d.dli_fname, '/');
    size_t n = slash ? (size_t)(slash - d.dli_fname) + 1 : 0;
    if (n + sizeof "weights.bin" > sizeof beside) { say("the library's path is too long"); return 1; }
    memcpy(beside, d.dli_fname, n);
    memcpy(beside + n, "weights.bin", sizeof "weights.bin");
    path = beside;
  }
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) { say("the weights cannot be opened: %s", strerror(errno)); return 1; }
  void *m = MAP_FAILED;
  if (fstat(fd, &st)) say("the weights cannot be read: %s", strerror(errno));
  else if ((size_t)st.st_size != lathe_artifact.weights) say("the weights have %lld bytes, not %lld", (long long)st.st_size, (long long)lathe_artifact.weights);
  else if ((m = mmap(0, lathe_artifact.weights, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) say("the weights cannot be mapped: %s", strerror(errno));
  close(fd);
  if (m == MAP_FAILED) return 1;
  W = m;
  return 0;
}

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

int lathe_load_(const char *path) {
  if (!V) return 1;
  pthread_mutex_lock(&load_lock);
  int r = load_weights(path);
  pthread_mutex_unlock(&load_lock);
  return r;
}

void lathe_set_threads_(int n) { set_threads(n); }
int lathe_get_threads_(void) { return lathe_threads_; }
int lathe_set_pin_(const char *cpus) { return set_pins(cpus); }
size_t lathe_workspace_size_(void) { return V ? V->workspace + (size_t)lathe_threads_ * V->scratch : 0; }
void lathe_set_trace_(void (*f)(int, int)) { lathe_trace = f; }
const char *lathe_error_(void) { return problem; }
int lathe_variant_(void) { return V ? (int)(V - lathe_artifact.variants) : -1; }

/* Asks for large pages where a workspace is large: its pages are made when they
   are touched first, and a hundred thousand small ones take longer than a run. */
#define LARGE ((uintptr_t)1 << 21)

static void large_pages(void *workspace, size_t size) {
#if defined(MADV_HUGEPAGE)
  uintptr_t from = ((uintptr_t)workspace + LARGE - 1) & ~(LARGE - 1), to = ((uintptr_t)workspace + size) & ~(LARGE - 1);
  if (from < to) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
  (void)workspace; (void)size;
#endif
}

static __thread void *seen; /* the workspace of the thread's last run */

int lathe_run_(const void *const *inputs, void *const *outputs, void *workspace) {
  if (!W && lathe_load_(0)) return 1;
  pin_caller();
  if (workspace != seen) {
    if (!seen) large_pages(workspace, V->workspace);
    seen = workspace;
  }
  lathe_scratch = (char *)workspace + V->workspace;
  atomic_fetch_add_explicit(&process->callers, 1, memory_order_relaxed);
  V->steps(inputs, outputs, workspace, W);
  atomic_fetch_sub_explicit(&process->callers, 1, memory_order_relaxed);
  return 0;
}

__attribute__((constructor)) static void begin(void) {
  const char *s;
  lathe_threads_ = lathe_artifact.threads;
  meet();
  choose((s = getenv("LATHE_CPU")) && *s ? s : 0);
  char *rest;
  long n = (s = getenv("LATHE_THREADS")) && *s ? strtol(s, &rest, 10) : -1;
  if (n >= 0 && !*rest) set_threads(n < MAX_THREADS ? (int)n : MAX_THREADS);
  if (set_pins((s = getenv("LATHE_PIN")) && *s ? s : lathe_artifact.pin)) say("none of the CPUs %s can be used", s ? s : lathe_artifact.pin);
  pthread_atfork(0, 0, pool_child);
}

/* Workers run code of this library: they must end before it is unloaded. */
__attribute__((destructor)) static void end(void) {
  stop_workers();
  if (W) munmap((void *)W, lathe_artifact.weights);
  if (first) dlclose(first);
}
