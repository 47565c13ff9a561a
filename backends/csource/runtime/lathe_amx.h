/* The matrix unit: eight tiles of 16 rows of 64 bytes. Tiles 0 to 3 hold sums,
   4 and 5 rows of the left operand, 6 and 7 the right operand; sums and left
   operands have as many rows as amx_config says. With LATHE_AMX_EMULATED other
   instructions do the same, to the bit, so that any CPU can run the code. */
#ifndef LATHE_AMX_H
#define LATHE_AMX_H
#include "lathe_rt.h"

/* Sixteen floats as bfloat16, rounded to nearest even. */
FN void amx_narrow(bf16 *s, const float *v) {
#ifdef __AVX512BF16__
  typedef float from __attribute__((vector_size(64), aligned(4), may_alias));
  typedef u16 to __attribute__((vector_size(32), aligned(2), may_alias));
  to h;
  __asm__("vcvtneps2bf16 %1, %0" : "=v"(h) : "m"(*(const from *)v));
  *(to *)s = h;
#else
  i32 h[16];
  _Pragma("omp simd") for (int l = 0; l < 16; l++) h[l] = (i32)round_bf16(v[l]);
  narrow16_bf16(s, h);
#endif
}

#ifndef LATHE_AMX_EMULATED
/* The fields of a configuration: a palette, the row to begin with, the bytes of
   a row and the rows of each tile. */
#define amx_config(R) do { \
    static const struct { u8 palette, start, zero[14]; u16 bytes[16]; u8 rows[16]; } c __attribute__((aligned(64))) = \
      {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {R, R, R, R, R, R, 16, 16}}; \
    __asm__ volatile("ldtilecfg %0" :: "m"(c)); \
  } while (0)
#define amx_release() __asm__ volatile("tilerelease")
#define amx_zero(T) __asm__ volatile("tilezero %%tmm" #T ::: "memory")
#define amx_load(T, P, STRIDE) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #T :: "r"(P), "r"((i64)(STRIDE)) : "memory")
#define amx_store(T, P, STRIDE) __asm__ volatile("tilestored %%tmm" #T ", (%0,%1,1)" :: "r"(P), "r"((i64)(STRIDE)) : "memory")
#define amx_dpbf16(C, A, B) __asm__ volatile("tdpbf16ps %%tmm" #B ", %%tmm" #A ", %%tmm" #C ::: "memory")
#define amx_dpbusd(C, A, B) __asm__ volatile("tdpbusd %%tmm" #B ", %%tmm" #A ", %%tmm" #C ::: "memory")
#else
typedef u32 amx_row __attribute__((vector_size(64)));
typedef float amx_floats __attribute__((vector_size(64)));

/* The tiles of a thread. Those that are not configured trap, as the CPU does. */
static __thread struct {
  amx_row t[8][16];
  int rows[8];
} amx;

#define amx_config amx_emulated_config
#define amx_release() amx_emulated_config(0)
#define amx_zero amx_emulated_zero
#define amx_load amx_emulated_load
#define amx_store amx_emulated_store
#define amx_dpbf16 amx_emulated_dpbf16
#define amx_dpbusd amx_emulated_dpbusd
#define AMX_FN static __attribute__((noinline, unused))

AMX_FN void amx_emulated_config(int rows) {
  memset(&amx, 0, sizeof amx);
  for (int t = 0; t < 8; t++) amx.rows[t] = rows && t > 5 ? 16 : rows;
}

FN int amx_rows(int t) {
  if (!amx.rows[t]) __builtin_trap();
  return amx.rows[t];
}

AMX_FN void amx_emulated_zero(int t) {
  (void)amx_rows(t);
  memset(amx.t[t], 0, sizeof amx.t[t]);
}

AMX_FN void amx_emulated_load(int t, const void *p, i64 stride) {
  int n = amx_rows(t);
  for (int r = 0; r < n; r++) memcpy(&amx.t[t][r], (const char *)p + r * stride, 64);
  memset(&amx.t[t][n], 0, (size_t)(16 - n) * 64);
}

AMX_FN void amx_emulated_store(int t, void *p, i64 stride) {
  int n = amx_rows(t);
  for (int r = 0; r < n; r++) memcpy((char *)p + r * stride, &amx.t[t][r], 64);
}

/* The even and the odd elements of the pairs are summed apart by fused
   multiply-adds, then together, then added. Denormals are zero, in operands and
   in results (the bits 6 and 15 of the control word), and it rounds to nearest
   even whatever the program has set. */
AMX_FN void amx_emulated_dpbf16(int c, int a, int b) {
  u32 mine, set = 0x9fc0;
  int n = amx_rows(c);
  if (amx_rows(a) != n || amx_rows(b) != 16) __builtin_trap();
  __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(mine) : "m"(set) : "memory");
  for (int m = 0; m < n; m++) {
    amx_floats even = {0}, odd = {0};
    const u32 *pairs = (const u32 *)&amx.t[a][m];
    for (int k = 0; k < 16; k++) {
      amx_row w = amx.t[b][k];
      even += bits_f32_u32(pairs[k] << 16) * (amx_floats)(w << 16);
      odd += bits_f32_u32(pairs[k] & 0xffff0000u) * (amx_floats)(w & 0xffff0000u);
    }
    amx.t[c][m] = (amx_row)((amx_floats)amx.t[c][m] + (even + odd));
  }
  __asm__ volatile("ldmxcsr %0" :: "m"(mine) : "memory");
}

/* Bytes without sign of the left operand by such with one; sums wrap. */
AMX_FN void amx_emulated_dpbusd(int c, int a, int b) {
  typedef i32 ints __attribute__((vector_size(64)));
  int n = amx_rows(c);
  if (amx_rows(a) != n || amx_rows(b) != 16) __builtin_trap();
  for (int m = 0; m < n; m++) {
    ints sum = (ints)amx.t[c][m];
    const u8 *quads = (const u8 *)&amx.t[a][m];
    for (int k = 0; k < 16; k++) {
      ints w = (ints)amx.t[b][k];
      sum += (i32)quads[4 * k] * (w << 24 >> 24);
      sum += (i32)quads[4 * k + 1] * (w << 16 >> 24);
      sum += (i32)quads[4 * k + 2] * (w << 8 >> 24);
      sum += (i32)quads[4 * k + 3] * (w >> 24);
    }
    amx.t[c][m] = (amx_row)sum;
  }
}
#endif
#endif
