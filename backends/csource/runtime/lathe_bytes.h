/* Functions of runs of bytes that compilers do not find in loops. */
#ifndef LATHE_BYTES_H
#define LATHE_BYTES_H
#include "lathe_rt.h"

/* r[i] = t[x[i]] for a table of 256 bytes. */
#if defined __AVX512VBMI__
typedef u8 bytes64 __attribute__((vector_size(64)));
/* Two instructions look up one half of the table each, bit 7 chooses. */
#define BYTES_LOOKUP(TO, FROM, K) { \
    bytes64 lo_, hi_; \
    __asm__("vmovdqu8 %1, %0%{%2%}%{z%}" : "=v"(hi_) : "m"(*(const u8 (*)[64])(FROM)), "Yk"((u64)(K))); \
    lo_ = hi_; \
    __asm__("vpmovb2m %1, %%k1\n\tvpermi2b %3, %2, %0\n\tvpermi2b %5, %4, %1\n\tvmovdqu8 %1, %0%{%%k1%}" \
      : "+&v"(lo_), "+&v"(hi_) : "v"(t0), "v"(t1), "v"(t2), "v"(t3) : "k1"); \
    __asm__("vmovdqu8 %1, %0%{%2%}" : "+m"(*(u8 (*)[64])(TO)) : "v"(lo_), "Yk"((u64)(K))); }
FN void bytes_lookup(u8 *r, const u8 *x, i64 n, const u8 *t) {
  bytes64 t0, t1, t2, t3;
  __builtin_memcpy(&t0, t, 64); __builtin_memcpy(&t1, t + 64, 64); __builtin_memcpy(&t2, t + 128, 64); __builtin_memcpy(&t3, t + 192, 64);
  i64 i = 0;
  for (; i + 64 <= n; i += 64) BYTES_LOOKUP(r + i, x + i, -1)
  if (i < n) BYTES_LOOKUP(r + i, x + i, (1ull << (n - i)) - 1)
}
#elif defined __AVX2__
#ifdef __AVX512BW__
#define BYTES_WIDE 64
#define BYTES_SPREAD "vbroadcasti32x4"
#else
#define BYTES_WIDE 32
#define BYTES_SPREAD "vbroadcasti128"
#endif
/* One instruction looks up 16 entries by the low bits of an index and gives 0
   where its top bit is set. An index that falls by 16 each time meets all pieces
   up to its own, so those hold what they differ by from the one before. */
FN void bytes_lookup(u8 *r, const u8 *x, i64 n, const u8 *t) {
  typedef i8 wide __attribute__((vector_size(BYTES_WIDE)));
  i64 i = 0;
  if (n >= BYTES_WIDE) {
    u8 d[256] __attribute__((aligned(64)));
    for (int j = 0; j < 256; j++) d[j] = j % 128 < 16 ? t[j] : t[j] ^ t[j - 16];
    const wide sixteen = (wide){0} + 16;
    for (;;) {
      wide a, b, s, sum = (wide){0};
      __builtin_memcpy(&a, x + i, sizeof a);
      b = a ^ (i8)-128;
      _Pragma("GCC unroll 8") for (int j = 0; j < 128; j += 16) {
        __asm__(BYTES_SPREAD " %1, %0" : "=v"(s) : "m"(*(const u8 (*)[16])(d + j)));
        __asm__("vpshufb %1, %0, %0" : "+v"(s) : "v"(a));
        sum ^= s;
        __asm__(BYTES_SPREAD " %1, %0" : "=v"(s) : "m"(*(const u8 (*)[16])(d + 128 + j)));
        __asm__("vpshufb %1, %0, %0" : "+v"(s) : "v"(b));
        sum ^= s;
        __asm__("vpsubsb %1, %0, %0" : "+v"(a) : "v"(sixteen));
        __asm__("vpsubsb %1, %0, %0" : "+v"(b) : "v"(sixteen));
      }
      __builtin_memcpy(r + i, &sum, sizeof sum);
      if (i + BYTES_WIDE == n) return;
      i += BYTES_WIDE;
      if (i + BYTES_WIDE > n) i = n - BYTES_WIDE; /* the last one overlaps: r is not x */
    }
  }
  for (; i < n; i++) r[i] = t[x[i]];
}
#else
FN void bytes_lookup(u8 *r, const u8 *x, i64 n, const u8 *t) {
  for (i64 i = 0; i < n; i++) r[i] = t[x[i]];
}
#endif

/* The sum of n bytes. One instruction adds up groups of eight without sign; with
   it, bytes are 128 more and the sum so much less. */
#if defined __AVX512BW__
#define BYTES_SUMMED 64
#elif defined __AVX2__
#define BYTES_SUMMED 32
#endif
FN i32 bytes_sum_with(const u8 *x, i64 n, u8 turn) {
  i64 i = 0, sum = 0;
#ifdef BYTES_SUMMED
  typedef u8 wide __attribute__((vector_size(BYTES_SUMMED))); typedef i64 sums __attribute__((vector_size(BYTES_SUMMED)));
  const wide none = {0}, turns = none + turn;
  sums s = {0};
  for (; i + BYTES_SUMMED <= n; i += BYTES_SUMMED) {
    wide a; sums b;
    __builtin_memcpy(&a, x + i, sizeof a);
    a ^= turns;
    __asm__("vpsadbw %1, %2, %0" : "=v"(b) : "v"(none), "v"(a));
    s += b;
  }
  for (int j = 0; j < BYTES_SUMMED / 8; j++) sum += s[j];
#endif
  for (; i < n; i++) sum += (u8)(x[i] ^ turn);
  return (i32)(sum - (turn ? 128 * n : 0));
}
FN i32 bytes_sum_u8(const u8 *x, i64 n) { return bytes_sum_with(x, n, 0); }
FN i32 bytes_sum_i8(const i8 *x, i64 n) { return bytes_sum_with((const u8 *)x, n, 128); }
#endif
