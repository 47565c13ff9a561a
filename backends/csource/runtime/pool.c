/* A pool of threads: a region is split into equal ranges; workers spin for a
   short while after a region and then sleep. One region runs at a time; a
   caller that finds the pool busy runs its region alone. */
#include <pthread.h>
#include <stdatomic.h>

typedef void (*region_fn)(void *const *args, i64 lo, i64 hi);

#define MAX_THREADS 64
#define SPIN 20000

__thread char *lathe_scratch;

static struct {
  char *scratch;         /* of the caller; each worker has its own behind it */
  pthread_t id[MAX_THREADS];
  int threads;           /* the caller included */
  int started;
  atomic_uint epoch;     /* counts regions; odd changes wake workers */
  atomic_int left;       /* workers still busy */
  atomic_int sleepers;
  atomic_int stop;
  region_fn fn;
  void *const *args;
  i64 n;
  pthread_mutex_t region, sleep;
  pthread_cond_t wake;
} pool = {.threads = LATHE_THREADS, .region = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void share(int t) {
  i64 lo = pool.n * t / pool.threads, hi = pool.n * (t + 1) / pool.threads;
  if (lo < hi) pool.fn(pool.args, lo, hi);
}

static void *worker(void *arg) {
  int t = (int)(intptr_t)arg;
  unsigned seen = 0;
  for (;;) {
    int spin = 0;
    while (atomic_load_explicit(&pool.epoch, memory_order_acquire) == seen) {
      if (++spin < SPIN) { relax(); continue; }
      pthread_mutex_lock(&pool.sleep);
      atomic_fetch_add(&pool.sleepers, 1);
      while (atomic_load(&pool.epoch) == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
      atomic_fetch_sub(&pool.sleepers, 1);
      pthread_mutex_unlock(&pool.sleep);
    }
    seen++;
    if (atomic_load(&pool.stop)) return 0;
    lathe_scratch = pool.scratch + (size_t)t * LATHE_SCRATCH;
    share(t);
    atomic_fetch_sub_explicit(&pool.left, 1, memory_order_release);
  }
}

static void kick(void) {
  atomic_fetch_add(&pool.epoch, 1);
  if (atomic_load(&pool.sleepers)) {
    pthread_mutex_lock(&pool.sleep);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep);
  }
}

static void stop_workers(void) {
  if (!pool.started) return;
  atomic_store(&pool.stop, 1);
  kick();
  for (int t = 1; t < pool.started; t++) pthread_join(pool.id[t], 0);
  pool.started = 0;
  atomic_store(&pool.stop, 0);
  atomic_store(&pool.epoch, 0);
}

static void set_threads(int n) {
  n = n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
  pthread_mutex_lock(&pool.region);
  if (n != pool.threads) { stop_workers(); pool.threads = n; }
  pthread_mutex_unlock(&pool.region);
}

/* Workers run code of this library: they must end before it is unloaded. */
__attribute__((destructor)) static void pool_end(void) { stop_workers(); }

static void region(region_fn f, void *const *args, i64 n) {
  if (pool.threads == 1 || n < 2 || pthread_mutex_trylock(&pool.region)) { f(args, 0, n); return; }
  if (!pool.started) {
    int t = 1;
    for (; t < pool.threads; t++)
      if (pthread_create(&pool.id[t], 0, worker, (void *)(intptr_t)t)) break;
    pool.started = pool.threads = t;
  }
  pool.scratch = lathe_scratch;
  pool.fn = f; pool.args = args; pool.n = n;
  atomic_store_explicit(&pool.left, pool.threads - 1, memory_order_relaxed);
  kick();
  share(0);
  while (atomic_load_explicit(&pool.left, memory_order_acquire)) relax();
  pthread_mutex_unlock(&pool.region);
}
