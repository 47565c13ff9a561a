/* Which of the variants is taken, by what they need of a CPU. */
#if defined(__x86_64__)
#define TILES 0x60000u

/* Tile registers are given to who asks for them. */
static int tiles(void) {
#if defined(__linux__)
  return !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18);
#else
  return 0;
#endif
}

static int has(const struct need *n) {
  static struct { u32 leaf, sub, r[4]; } known[8]; /* CPUID is slow where a hypervisor answers */
  static int count;
  static u32 saved, top[2];
  int i = 0;
  while (i < count && (known[i].leaf != n->leaf || known[i].sub != n->sub)) i++;
  if (i == count) {
    u32 r[4] = {0, 0, 0, 0};
    u32 *most = &top[n->leaf >> 31];
    if (!*most) *most = __get_cpuid_max(n->leaf & 0x80000000u, 0);
    if (*most >= n->leaf) __cpuid_count(n->leaf, n->sub, r[0], r[1], r[2], r[3]);
    if (i == 8) return r[n->reg] >> n->bit & 1u;
    known[count].leaf = n->leaf;
    known[count].sub = n->sub;
    memcpy(known[count++].r, r, sizeof r);
  }
  if (n->state && !saved) {
    static const struct need osxsave = {"osxsave", 1, 0, 2, 27, 0, 0};
    u32 high;
    saved = 1;
    if (has(&osxsave)) __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  }
  return (known[i].r[n->reg] >> n->bit & 1u) && (saved & n->state) == n->state && (n->state != TILES || tiles());
}
#elif defined(__aarch64__) && defined(__linux__)
static int has(const struct need *n) { return (int)(getauxval((unsigned long)n->aux) >> n->bit & 1u); }
#else
static int has(const struct need *n) { (void)n; return 1; }
#endif

static const struct variant *V;  /* the one that runs */
static char problem[512];        /* why there is none, or no weights */

static void say(const char *format, ...) {
  va_list a;
  va_start(a, format);
  vsnprintf(problem, sizeof problem, format, a);
  va_end(a);
}

/* What a variant needs that the CPU has not; 0 if it can run. */
static const char *lacks(const struct variant *v) {
  for (int i = 0; i < v->n; i++)
    if (!has(&v->needs[i])) return v->needs[i].name;
  return 0;
}

/* Takes the first variant that the CPU can run, or the one of a name. */
static int choose(const char *name) {
  const char *lack = 0;
  size_t at;
  for (int i = 0; i < lathe_artifact.count; i++) {
    if (name && strcmp(name, lathe_artifact.variants[i].cpu)) continue;
    if (!(lack = lacks(&lathe_artifact.variants[i]))) { V = &lathe_artifact.variants[i]; problem[0] = 0; return 0; }
    if (name) { say("the variant %s needs %s, which this CPU does not have", name, lack); return 1; }
  }
  if (!name && lathe_artifact.count == 1) { say("the code is for %s and needs %s, which this CPU does not have", lathe_artifact.variants[0].cpu, lack); return 1; }
  if (name) say("there is no variant %s, only", name); else say("this CPU can run none of");
  for (int i = 0; i < lathe_artifact.count && (at = strlen(problem)) + 1 < sizeof problem; i++)
    snprintf(problem + at, sizeof problem - at, "%s %s", i ? "," : "", lathe_artifact.variants[i].cpu);
  return 1;
}
