/* What the machine can do at most, for profiles: multiply-adds from registers,
   reads and copies of working sets of several sizes. LANES is set by the build. */
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float any __attribute__((vector_size(4 * LANES), aligned(4)));
#define API __attribute__((visibility("default")))
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

/* 24 * LANES flops per round; twelve sums hide the latency of one. */
API int roof_fma(const float *xy, float *out, long rounds) {
  vec x = *(const any *)xy, y = *(const any *)(xy + LANES);
#define SUM(i) vec s##i = x + (float)i;
  EACH(SUM)
  for (long r = 0; r < rounds; r++) {
#define STEP(i) s##i = s##i * x + y;
    EACH(STEP)
    /* The sums must be in registers and are not known here. */
#define HOLD(i) __asm__ volatile("" : "+" REG(s##i));
#ifdef __x86_64__
#define REG(s) "v"(s)
#else
#define REG(s) "w"(s)
#endif
    EACH(HOLD)
  }
  vec s = x;
#define ALL(i) s += s##i;
  EACH(ALL)
  *(any *)out = s;
  return 0;
}

/* Reads floats values, a multiple of 8 * LANES, rounds times. */
API int roof_read(const float *from, float *out, long floats, long rounds) {
  vec a[8] = {{0}};
  for (long r = 0; r < rounds; r++) {
    for (long i = 0; i < floats; i += 8 * LANES) {
      a[0] += *(const any *)(from + i);
      a[1] += *(const any *)(from + i + LANES);
      a[2] += *(const any *)(from + i + 2 * LANES);
      a[3] += *(const any *)(from + i + 3 * LANES);
      a[4] += *(const any *)(from + i + 4 * LANES);
      a[5] += *(const any *)(from + i + 5 * LANES);
      a[6] += *(const any *)(from + i + 6 * LANES);
      a[7] += *(const any *)(from + i + 7 * LANES);
    }
    __asm__ volatile("" : : : "memory");
  }
  for (int i = 0; i < 8; i++) *(any *)(out + i * LANES) = a[i];
  return 0;
}

/* Copies bytes, rounds times, as the C library does it. */
API int roof_copy(char *to, const char *from, long bytes, long rounds) {
  for (long r = 0; r < rounds; r++) {
    __builtin_memcpy(to, from, bytes);
    __asm__ volatile("" : : : "memory");
  }
  return 0;
}

/* A step that does nothing, as often as asked: what the trace itself costs. */
API int roof_gap(void (*trace)(int, int), int times) {
  for (int i = 0; i < times; i++) { trace(0, 1); trace(0, 0); }
  return 0;
}
