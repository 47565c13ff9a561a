/* Where threads run. Pinned ones, callers too, have a CPU of their own each among
   those that the process may use; others go where the system puts them, but two
   of a region never stay on one CPU. */
#define MAX_CPUS 256
#define MAX_THREADS 64

static struct {
  int n;               /* 0: threads go where the system puts them */
  int cpu[MAX_CPUS];
  atomic_int callers;  /* threads that called run: the first has the first CPU */
} pins;
static __thread int pinned;

#if defined(__linux__)
/* A CPU is the first of its core if its list of siblings begins with it. */
static int first_of_core(int cpu) {
  char path[96];
  int at = cpu;
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE *f = fopen(path, "re");
  if (!f) return 1;
  if (fscanf(f, "%d", &at) != 1) at = cpu;
  fclose(f);
  return at == cpu;
}

/* Adds the CPUs of a list such as 0-3,8; gives 0 if it is none. */
static int parse_cpus(const char *s, cpu_set_t *to) {
  CPU_ZERO(to);
  for (;;) {
    char *e;
    long a = strtol(s, &e, 10), b = a;
    if (e == s || a < 0) return 0;
    if (*e == '-') { s = e + 1; b = strtol(s, &e, 10); if (e == s) return 0; }
    if (b < a || b >= CPU_SETSIZE) return 0;
    for (; a <= b; a++) CPU_SET((int)a, to);
    if (!*e) return 1;
    if (*e != ',') return 0;
    s = e + 1;
  }
}

static int set_pins(const char *list) {
  cpu_set_t may = process->may, want = may;
  pins.n = 0;
  if (!list || !*list || !strcmp(list, "off")) return 0;
  if (strcmp(list, "auto") && !parse_cpus(list, &want)) return 1;
  int n = 0;
  for (int pass = 0; pass < 2; pass++) /* one thread of each core, then the others */
    for (int c = 0; c < CPU_SETSIZE && n < MAX_CPUS; c++)
      if (CPU_ISSET(c, &may) && CPU_ISSET(c, &want) && first_of_core(c) == !pass) pins.cpu[n++] = c;
  /* Processes that all begin with the first CPU would be on it together: auto
     begins with the one that this thread was given. */
  int at = 0, here = strcmp(list, "auto") ? -1 : sched_getcpu(), turned[MAX_CPUS];
  for (int i = 0; i < n; i++) if (pins.cpu[i] == here) at = i;
  for (int i = 0; i < n; i++) turned[i] = pins.cpu[(i + at) % n];
  memcpy(pins.cpu, turned, (size_t)n * sizeof *turned);
  pins.n = n;
  return n == 0;
}

static void pin_to(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static void pin_worker(int t) { if (pins.n) pin_to(pins.cpu[t % pins.n]); }

/* The first caller has the first CPU, others the last ones, away from the
   first caller's workers. */
static void pin_caller(void) {
  if (!pins.n || pinned) return;
  int k = atomic_fetch_add(&pins.callers, 1) % pins.n;
  pinned = 1;
  pin_to(pins.cpu[k ? pins.n - k : 0]);
}

/* The CPUs on which the threads of a region were last, plus one. A system that
   sees threads wake for microseconds may wake a worker on its caller's CPU time
   after time, and leave them there together while another idles: the worker then
   goes to a CPU that none of them has. */
static atomic_int place[MAX_THREADS];

static void here(int t) { atomic_store_explicit(&place[t], sched_getcpu() + 1, memory_order_relaxed); }

static void spread(int t, int threads) {
  cpu_set_t free = process->may;
  if (pins.n) return;
  here(t);
  int shared = 0;
  for (int u = 0; u < t; u++) shared |= atomic_load_explicit(&place[u], memory_order_relaxed) == atomic_load_explicit(&place[t], memory_order_relaxed);
  if (!shared) return;
  for (int u = 0; u < threads; u++) {
    int c = atomic_load_explicit(&place[u], memory_order_relaxed) - 1;
    if (c >= 0) CPU_CLR((unsigned)c, &free);
  }
  if (CPU_COUNT(&free) && !pthread_setaffinity_np(pthread_self(), sizeof free, &free)) here(t);
}
#else
static int set_pins(const char *list) { return list && *list && strcmp(list, "off"); }
static void pin_worker(int t) { (void)t; }
static void pin_caller(void) {}
static void here(int t) { (void)t; }
static void spread(int t, int threads) { (void)t; (void)threads; }
#endif
