/* A pool of threads. A region is cut into chunks, of which each thread has its
   part: the same part of every region, so that what it wrote in one it often
   finds in its own cache in the next. It takes them one by one from the front,
   and those that others have not begun from their ends when it has no more: a
   worker which the system has put aside delays nobody. Workers spin for a short
   while after a region and then sleep. One region runs at a time; a caller that
   finds the pool busy runs alone. A region takes no more workers than its
   caller's share of the CPUs: callers of all artifacts in the process count
   themselves (see callers.c). Where other processes have the CPUs, workers are a
   burden: regions then run alone, but for a few now and then that try again. */
#define LINE 64 /* bytes that CPUs exchange at once */

__thread char *lathe_scratch;
int lathe_threads_ = LATHE_THREADS;

static struct {
  pthread_t id;
  atomic_int asleep __attribute__((aligned(LINE)));
  /* The number of the region in the upper half, in the lower the thread's chunks
     that are left, the end above the front: a chunk is taken by an exchange that
     fails if the region has changed, so what was read of it before is what it
     was. What is left must be here and not beside: a late worker of a region that
     is used up would hold it against the size of the next one. */
  _Atomic u64 ticket __attribute__((aligned(LINE)));
} seats[MAX_THREADS]; /* the caller's first */

static struct {
  _Atomic u32 done __attribute__((aligned(LINE))); /* chunks finished */
  atomic_int waiting;    /* the caller sleeps until they are */
  region_fn fn __attribute__((aligned(LINE)));
  void *const *args;
  char *scratch;         /* of the caller; each worker has its own behind it */
  size_t scratch_size;
  i64 n;
  u32 number, chunks;
  int limit;             /* workers beyond it have no part in the region */
  int started;           /* threads, the caller included */
  atomic_int stop;
  pthread_mutex_t region;
} pool = {.region = PTHREAD_MUTEX_INITIALIZER};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/* A clock that costs nothing to read, and what makes 30 to 100 us of it. */
#if defined(__x86_64__)
static inline u64 ticks(void) { return __builtin_ia32_rdtsc(); }
static inline u64 moment(void) { return 150000; }
#elif defined(__aarch64__)
static inline u64 ticks(void) { u64 t; __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t)); return t; }
static inline u64 moment(void) { u64 f; __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(f)); return f / 20000; }
#else
static inline u64 ticks(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec; }
static inline u64 moment(void) { return 50000; }
#endif

/* Sleeps until a word is no longer 1; wakes who sleeps on it. */
#if defined(__linux__)
static void doze(atomic_int *w) { syscall(SYS_futex, w, 128 /* FUTEX_WAIT_PRIVATE */, 1, 0, 0, 0); }
static void rouse(atomic_int *w) { syscall(SYS_futex, w, 129 /* FUTEX_WAKE_PRIVATE */, 1, 0, 0, 0); }
#else
static void doze(atomic_int *w) { struct timespec t = {0, 50000}; if (atomic_load(w) == 1) nanosleep(&t, 0); }
static void rouse(atomic_int *w) { (void)w; }
#endif

/* Takes a chunk of thread u's and runs it as thread t; 0 if there is none. */
static int work_on(int u, int t) {
  for (;;) {
    u64 s = atomic_load_explicit(&seats[u].ticket, memory_order_acquire);
    region_fn fn = pool.fn;
    void *const *args = pool.args;
    char *scratch = pool.scratch;
    size_t size = pool.scratch_size;
    i64 n = pool.n, chunks = pool.chunks, front = s & 0xffff, end = s >> 16 & 0xffff, c = u == t ? front : end - 1;
    if (front == end) return 0;
    if (!atomic_compare_exchange_weak(&seats[u].ticket, &s, u == t ? s + 1 : s - 0x10000)) continue;
    if (t) lathe_scratch = scratch + (size_t)t * size;
    fn(args, n * c / chunks, n * (c + 1) / chunks);
    if (atomic_fetch_add(&pool.done, 1) + 1 == (u32)chunks && t && atomic_exchange(&pool.waiting, 0)) rouse(&pool.waiting);
    return 1;
  }
}

/* Takes chunks of the current region until there are none; gives how many. */
static u32 work(int t) {
  u32 taken = 0;
  for (int k = 0, threads = pool.limit + 1; k < threads; k++)
    while (work_on((t + k) % threads, t)) taken++;
  return taken;
}

static u32 number(int t) { return (u32)(atomic_load(&seats[t].ticket) >> 32); }

/* How many workers a caller may have: its share of the CPUs, less itself. */
static int helpers(void) {
  int c = atomic_load_explicit(&process->callers, memory_order_relaxed);
  int share = (c > 1 ? usable_cpus() / c : usable_cpus()) - 1;
  return share < lathe_threads_ - 1 ? share : lathe_threads_ - 1;
}

static void *worker(void *arg) {
  int t = (int)(intptr_t)arg;
  u32 seen = 0;
  pin_worker(t);
  for (;;) {
    u64 start = ticks();
    for (int spin = 1; number(t) == seen; spin++) {
      relax();
      if (spin % 16) continue;
      if (ticks() - start < moment() && t <= helpers()) continue;
      atomic_store(&seats[t].asleep, 1);
      while (number(t) == seen && atomic_load(&seats[t].asleep)) doze(&seats[t].asleep);
      atomic_store(&seats[t].asleep, 0);
    }
    seen = number(t);
    if (atomic_load(&pool.stop)) return 0;
    spread(t, pool.limit + 1);
    work(t);
  }
}

/* Publishes a region: what it consists of must be written before. */
static void publish(u32 chunks, int limit) {
  pool.chunks = chunks;
  pool.limit = limit;
  pool.number++;
  for (u32 t = 0, threads = (u32)limit + 1; t < threads; t++)
    atomic_store(&seats[t].ticket, (u64)pool.number << 32 | (chunks * (t + 1) / threads) << 16 | chunks * t / threads);
  for (int t = 1; t <= limit; t++)
    if (atomic_load(&seats[t].asleep) && atomic_exchange(&seats[t].asleep, 0)) rouse(&seats[t].asleep);
}

static void stop_workers(void) {
  if (pool.started < 2) return;
  atomic_store(&pool.stop, 1);
  publish(0, pool.started - 1);
  for (int t = 1; t < pool.started; t++) pthread_join(seats[t].id, 0);
  pool.started = 0;
  atomic_store(&pool.stop, 0);
}

/* Starts workers up to a number; what cannot be started is done without. They
   take no signals, which are the application's. */
static void start_workers(int wanted) {
  sigset_t all, old;
  if (pool.started > wanted) return;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  if (!pool.started) pool.started = 1;
  for (int t = pool.started; t <= wanted; t = ++pool.started) {
    atomic_store(&seats[t].asleep, 0);
    if (pthread_create(&seats[t].id, 0, worker, (void *)(intptr_t)t)) break;
  }
  pthread_sigmask(SIG_SETMASK, &old, 0);
}

static void set_threads(int n) {
  n = n < 1 ? usable_cpus() : n;
  n = n > MAX_THREADS ? MAX_THREADS : n;
  pthread_mutex_lock(&pool.region);
  if (n != lathe_threads_) { stop_workers(); lathe_threads_ = n; }
  pthread_mutex_unlock(&pool.region);
}

/* Waits until all chunks are done: shortly by spinning, then asleep. */
static void await(u32 chunks) {
  u64 start = ticks();
  for (int spin = 1; atomic_load(&pool.done) < chunks; spin++) {
    relax();
    if (spin % 16 || ticks() - start < moment()) continue;
    atomic_store(&pool.waiting, 1);
    while (atomic_load(&pool.done) < chunks && atomic_load(&pool.waiting)) doze(&pool.waiting);
    atomic_store(&pool.waiting, 0);
  }
}

/* How sharing went of late. Regions are tried by eights: if workers did nothing
   in them, or held the caller up in more than two, it goes on alone for a while,
   each time longer. A worker may well begin its last chunk when the caller ends
   its own: only what is longer than a chunk holds up. */
static struct { int pause, alone, tried, late, helped; } lately;

static void learn(u64 own, u32 taken, u64 waited, int helped) {
  u64 chunk = own / (taken ? taken : 1);
  lately.tried++;
  lately.helped += helped;
  lately.late += waited > chunk + chunk / 2 + moment() / 8;
  if (waited > 2 * chunk + 4 * moment()) lately.late = 8;
  if (lately.tried < 8 && lately.late < 3) return;
  if (lately.late > 2 || !lately.helped) lately.pause = lately.pause < 512 ? 2 * lately.pause + 16 : 1024;
  else lately.pause /= 4;
  lately.alone = lately.pause;
  lately.tried = lately.late = lately.helped = 0;
}

void lathe_region(region_fn f, void *const *args, i64 n) {
  int limit = helpers();
  if (limit < 1 || pthread_mutex_trylock(&pool.region)) { f(args, 0, n); return; }
  if (lately.alone > 0) {
    lately.alone--;
    pthread_mutex_unlock(&pool.region);
    f(args, 0, n);
    return;
  }
  start_workers(limit);
  if (limit > pool.started - 1) limit = pool.started - 1;
  i64 chunks = (i64)(limit + 1) * 4;
  pool.fn = f; pool.args = args; pool.n = n; pool.scratch = lathe_scratch; pool.scratch_size = LATHE_SCRATCH;
  u32 all = (u32)(n < chunks ? n : chunks);
  atomic_store(&pool.done, 0);
  here(0);
  u64 begin = ticks();
  publish(all, limit);
  u32 own = work(0);
  u64 mine = ticks();
  await(all);
  learn(mine - begin, own, ticks() - mine, own < all);
  pthread_mutex_unlock(&pool.region);
}

/* A child of fork has no workers, and no caller but the one that forked. */
static void pool_child(void) {
  pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  pool.region = fresh;
  pool.started = 0;
  for (int t = 0; t < MAX_THREADS; t++) atomic_store(&seats[t].ticket, 0);
  atomic_store(&process->callers, 0);
}
