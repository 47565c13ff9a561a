/* A pool of threads. A region is cut into chunks that the caller and the
   workers take one by one, so that a worker which the system has put aside
   delays nobody. Workers spin for a short while after a region and then sleep.
   One region runs at a time; a caller that finds the pool busy runs alone. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

typedef void (*region_fn)(void *const *args, i64 lo, i64 hi);

#define MAX_THREADS 64
#define SPIN 20000

__thread char *lathe_scratch;

static struct {
  pthread_t id[MAX_THREADS];
  int threads;           /* the caller included */
  int started;
  /* The number of the region in the upper half, in the lower how many of its
     chunks are left: a chunk is taken by an exchange that fails if the region
     has changed, so what was read of it before is what it was. The count of
     what is left must be here and not beside: a late worker of a region that
     is used up would hold it against the size of the next one. */
  _Atomic u64 ticket;
  _Atomic u32 done;      /* chunks finished */
  atomic_int sleepers, stop;
  region_fn fn;
  void *const *args;
  char *scratch;         /* of the caller; each worker has its own behind it */
  i64 n;
  u32 chunks;
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

/* Takes chunks of the current region until there are none. */
static void work(int t) {
  for (;;) {
    u64 s = atomic_load_explicit(&pool.ticket, memory_order_acquire);
    region_fn fn = pool.fn;
    void *const *args = pool.args;
    char *scratch = pool.scratch;
    i64 n = pool.n, chunks = pool.chunks, c = chunks - (i64)(u32)s;
    if (!(u32)s) return;
    if (!atomic_compare_exchange_weak(&pool.ticket, &s, s - 1)) continue;
    if (t) lathe_scratch = scratch + (size_t)t * LATHE_SCRATCH;
    fn(args, n * c / chunks, n * (c + 1) / chunks);
    atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
  }
}

static u32 current(void) { return (u32)(atomic_load_explicit(&pool.ticket, memory_order_acquire) >> 32); }

static void *worker(void *arg) {
  u32 seen = 0;
  for (;;) {
    for (int spin = 0; current() == seen; ) {
      if (++spin < SPIN) { relax(); continue; }
      pthread_mutex_lock(&pool.sleep);
      atomic_fetch_add(&pool.sleepers, 1);
      while (current() == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
      atomic_fetch_sub(&pool.sleepers, 1);
      pthread_mutex_unlock(&pool.sleep);
    }
    seen = current();
    if (atomic_load(&pool.stop)) return 0;
    work((int)(intptr_t)arg);
  }
}

/* Publishes a region: what it consists of must be written before. */
static void publish(u32 chunks) {
  atomic_store(&pool.ticket, ((u64)current() + 1) << 32 | chunks);
  if (atomic_load(&pool.sleepers)) {
    pthread_mutex_lock(&pool.sleep);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep);
  }
}

static void stop_workers(void) {
  if (!pool.started) return;
  atomic_store(&pool.stop, 1);
  publish(0);
  for (int t = 1; t < pool.started; t++) pthread_join(pool.id[t], 0);
  pool.started = 0;
  atomic_store(&pool.stop, 0);
  atomic_store(&pool.ticket, 0);
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
    pool.started = t;
  }
  i64 chunks = (i64)pool.threads * 4;
  pool.fn = f; pool.args = args; pool.n = n; pool.scratch = lathe_scratch;
  pool.chunks = (u32)(n < chunks ? n : chunks);
  atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
  publish(pool.chunks);
  work(0);
  for (int spin = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < pool.chunks; )
    if (++spin < 2000) relax(); else sched_yield();
  pthread_mutex_unlock(&pool.region);
}
