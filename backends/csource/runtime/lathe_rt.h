/* What kernels need: fixed-width names, narrow floats, scalar functions.
   All functions are free of branches where vectors profit, and are static, so
   that the compiler can make vectors of the loops that call them. */
#ifndef LATHE_RT_H
#define LATHE_RT_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int8_t i8; typedef int16_t i16; typedef int32_t i32; typedef int64_t i64;
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef uint16_t f16; typedef uint16_t bf16;

#define F32_INF __builtin_inff()
#define F64_INF __builtin_inf()
#define F32_NAN __builtin_nanf("")
#define F64_NAN __builtin_nan("")
#define FN static inline __attribute__((always_inline, unused))

#define BITS(D, DT, S, ST) FN DT bits_##D##_##S(ST x) { DT r; __builtin_memcpy(&r, &x, sizeof r); return r; }
BITS(i32, i32, f32, float) BITS(u32, u32, f32, float) BITS(f32, float, i32, i32) BITS(f32, float, u32, u32)
BITS(i64, i64, f64, double) BITS(u64, u64, f64, double) BITS(f64, double, i64, i64) BITS(f64, double, u64, u64)
BITS(i32, i32, u32, u32) BITS(u32, u32, i32, i32) BITS(i64, i64, u64, u64) BITS(u64, u64, i64, i64)
BITS(i16, i16, u16, u16) BITS(u16, u16, i16, i16) BITS(i8, i8, u8, u8) BITS(u8, u8, i8, i8)
BITS(u8, u8, bool, u8) BITS(bool, u8, u8, u8) BITS(i8, i8, bool, u8) BITS(bool, u8, i8, i8)
BITS(f16, f16, i16, i16) BITS(i16, i16, f16, f16) BITS(f16, f16, u16, u16) BITS(u16, u16, f16, f16)
BITS(bf16, bf16, i16, i16) BITS(i16, i16, bf16, bf16) BITS(bf16, bf16, u16, u16) BITS(u16, u16, bf16, bf16)
BITS(f16, f16, bf16, bf16) BITS(bf16, bf16, f16, f16)

/* The calling thread's part of the workspace, for kernels with large locals. */
#define HIDDEN __attribute__((visibility("hidden")))
extern __thread char *lathe_scratch __attribute__((visibility("hidden"), tls_model("local-dynamic")));

/* Regions of iterations that threads may share, see pool.c. */
typedef void (*region_fn)(void *const *args, i64 lo, i64 hi);
extern int lathe_threads_ HIDDEN;
extern void (*lathe_trace)(int step, int begin) HIDDEN;
void lathe_region(region_fn f, void *const *args, i64 n) HIDDEN;

/* float16 and bfloat16 */
FN float f32_bf16(bf16 h) { return bits_f32_u32((u32)h << 16); }
FN bf16 to_bf16_f32(float x) {
  u32 b = bits_u32_f32(x);
  u32 r = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return (bf16)(x != x ? 0x7fc0u : r);
}
/* Blocks of elements of other widths, as one vector each. GCC 12 takes vectors of
   bytes apart to convert them, so those are instructions. */
#define BLOCK(N, T, S) WIDEN(N, T, S) NARROW(N, T, S)
#define WIDEN(N, T, S) \
  FN void widen##N##_##T(i32 *r, const S *p) { \
    typedef S from __attribute__((vector_size(N * sizeof(S)))); typedef i32 to __attribute__((vector_size(N * 4))); \
    from a; __builtin_memcpy(&a, p, sizeof a); to b = __builtin_convertvector(a, to); __builtin_memcpy(r, &b, sizeof b); }
#define NARROW(N, T, S) \
  FN void narrow##N##_##T(S *r, const i32 *p) { \
    typedef S to __attribute__((vector_size(N * sizeof(S)))); typedef i32 from __attribute__((vector_size(N * 4))); \
    from a; __builtin_memcpy(&a, p, sizeof a); to b = __builtin_convertvector(a, to); __builtin_memcpy(r, &b, sizeof b); }
#define WIDEN_BY(N, T, INSTR) \
  FN void widen##N##_##T(i32 *r, const T *p) { \
    typedef i32 to __attribute__((vector_size(N * 4))); \
    to b; __asm__(INSTR " %1, %0" : "=v"(b) : "m"(*(const T (*)[N])p)); __builtin_memcpy(r, &b, sizeof b); }
#ifdef __AVX2__
#define NARROW8(T) \
  FN void narrow8_##T(T *r, const i32 *p) { \
    typedef i32 from __attribute__((vector_size(32))); typedef i32 half __attribute__((vector_size(16))); \
    from a; half t; __builtin_memcpy(&a, p, sizeof a); a &= 255; \
    __asm__("vextracti128 $1, %2, %1\n\tvpackusdw %1, %x2, %1\n\tvpackuswb %1, %1, %1\n\tvmovq %1, %0" : "=m"(*(T (*)[8])r), "=&x"(t) : "x"(a)); }
WIDEN_BY(8, u8, "vpmovzxbd") WIDEN_BY(8, i8, "vpmovsxbd") NARROW8(u8) NARROW8(i8)
#else
BLOCK(8, u8, u8) BLOCK(8, i8, i8)
#endif
#ifdef __AVX512F__
#define NARROW16(T) \
  FN void narrow16_##T(T *r, const i32 *p) { \
    typedef i32 from __attribute__((vector_size(64))); \
    from a; __builtin_memcpy(&a, p, sizeof a); __asm__("vpmovdb %1, %0" : "=m"(*(T (*)[16])r) : "v"(a)); }
WIDEN_BY(16, u8, "vpmovzxbd") WIDEN_BY(16, i8, "vpmovsxbd") NARROW16(u8) NARROW16(i8)
#else
BLOCK(16, u8, u8) BLOCK(16, i8, i8)
#endif
BLOCK(8, bf16, bf16)
#ifdef __AVX512F__
WIDEN_BY(16, bf16, "vpmovzxwd")
FN void narrow16_bf16(bf16 *r, const i32 *p) {
  typedef i32 from __attribute__((vector_size(64)));
  from a; __builtin_memcpy(&a, p, sizeof a); __asm__("vpmovdw %1, %0" : "=m"(*(bf16 (*)[16])r) : "v"(a));
}
#else
BLOCK(16, bf16, bf16)
#endif
/* Floats between lo and hi as bytes; if any may be NaN, the byte of that is 0. */
#if defined __AVX512F__
#define CLIP16(T) \
  FN void clip16_##T(T *r, const float *p, float lo, float hi, int nan) { \
    typedef float from __attribute__((vector_size(64))); typedef i32 to __attribute__((vector_size(64))); \
    from a; to b; const from l = (from){0} + lo, h = (from){0} + hi; u16 k; __builtin_memcpy(&a, p, sizeof a); \
    if (nan) __asm__("vcmpordps %1, %1, %0" : "=Yk"(k) : "v"(a)); \
    __asm__("vmaxps %1, %0, %0\n\tvminps %2, %0, %0" : "+v"(a) : "v"(l), "v"(h)); \
    if (nan) __asm__("vcvttps2dq %1, %0%{%2%}%{z%}" : "=v"(b) : "v"(a), "Yk"(k)); \
    else __asm__("vcvttps2dq %1, %0" : "=v"(b) : "v"(a)); \
    __asm__("vpmovdb %1, %0" : "=m"(*(T (*)[16])r) : "v"(b)); }
#else
#define CLIP16(T) CLIP(16, T)
#endif
#define CLIP(N, T) \
  FN void clip##N##_##T(T *r, const float *p, float lo, float hi, int nan) { \
    i32 t[N]; \
    (void)nan; \
    for (int i = 0; i < N; i++) { float a = p[i]; a = lo > a ? lo : a; a = hi < a ? hi : a; t[i] = (i32)a; } \
    narrow##N##_##T(r, t); }
#ifdef __AVX2__
#define CLIP8(T) \
  FN void clip8_##T(T *r, const float *p, float lo, float hi, int nan) { \
    typedef float from __attribute__((vector_size(32))); typedef i32 to __attribute__((vector_size(32))); \
    from a; to b, k; const from l = (from){0} + lo, h = (from){0} + hi; __builtin_memcpy(&a, p, sizeof a); \
    k = a == a; \
    __asm__("vmaxps %1, %0, %0\n\tvminps %2, %0, %0" : "+x"(a) : "x"(l), "x"(h)); \
    __asm__("vcvttps2dq %1, %0" : "=x"(b) : "x"(a)); \
    if (nan) b &= k; \
    i32 t[8]; __builtin_memcpy(t, &b, sizeof t); narrow8_##T(r, t); }
#else
#define CLIP8(T) CLIP(8, T)
#endif
CLIP8(u8) CLIP8(i8) CLIP16(u8) CLIP16(i8)
/* float16, with floats on the other side, where that is an instruction. */
#define HALF(N) \
  FN void widen##N##_f16(float *r, const f16 *p) { \
    typedef float to __attribute__((vector_size(N * 4))); \
    to b; __asm__("vcvtph2ps %1, %0" : "=v"(b) : "m"(*(const f16 (*)[N])p)); __builtin_memcpy(r, &b, sizeof b); } \
  FN void narrow##N##_f16(f16 *r, const float *p) { \
    typedef float from __attribute__((vector_size(N * 4))); \
    from a; __builtin_memcpy(&a, p, sizeof a); __asm__("vcvtps2ph $0, %1, %0" : "=m"(*(f16 (*)[N])r) : "v"(a)); }
#ifdef __F16C__
HALF(8)
#endif
#ifdef __AVX512F__
HALF(16)
#endif
FN u32 round_bf16(float x) {
  u32 b = bits_u32_f32(x);
  u32 r = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return x != x ? 0x7fc0u : r;
}
FN float f32_f16(f16 h) {
  u32 sign = (u32)(h & 0x8000u) << 16, mag = h & 0x7fffu;
  float normal = bits_f32_u32((mag << 13) + 0x38000000u);
  float tiny = bits_f32_u32((mag << 13) + 0x38800000u) - 0x1p-14f; /* mag < 0x400 */
  float big = bits_f32_u32((mag << 13) | 0x7f800000u);
  float r = mag < 0x400u ? tiny : mag >= 0x7c00u ? big : normal;
  return bits_f32_u32(bits_u32_f32(r) | sign);
}
FN f16 to_f16_f32(float x) {
  u32 b = bits_u32_f32(x), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
  u32 tiny = bits_u32_f32(bits_f32_u32(a) + 0.5f) - 0x3f000000u;
  u32 normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  u32 r = a >= 0x47800000u ? (a > 0x7f800000u ? 0x7e00u : 0x7c00u) : a < 0x38800000u ? tiny : normal;
  return (f16)(r | sign);
}
/* The nearest whole number to x, bounded by lo and by hi, which is not negative, and
   moved by another, all up to 2^20, in the low byte. Added to a number whose last bit
   is worth one, bits are in the order of numbers; those of positive numbers are so
   before, and to bound these keeps a product in x from being fused. x is a number. */
#define NEAREST 0x4b400000
FN i32 nearest_f32(float x, i32 lo, float hi, i32 zero) {
  const i32 a = bits_i32_f32(x), top = bits_i32_f32(hi);
  const i32 b = bits_i32_f32(bits_f32_i32(a > top ? top : a) + 0x1.8p+23f);
  return (b < NEAREST + lo ? NEAREST + lo : b) + zero;
}
/* From double by rounding to odd first, so that two roundings equal one. */
FN float odd_f32(double x) {
  float f = (float)x;
  u32 b = bits_u32_f32(f);
  u32 down = ((double)f > x) == (x > 0) ? b - 1 : b;
  return (double)f == x || x != x || (b & 1u) ? f : bits_f32_u32(down | 1u);
}
FN f16 to_f16_f64(double x) { return to_f16_f32(odd_f32(x)); }
FN bf16 to_bf16_f64(double x) { return to_bf16_f32(odd_f32(x)); }
FN u64 u64_f64(double x) { return x >= 0x1p63 && x < 0x1p64 ? (u64)(i64)(x - 0x1p63) + (1ULL << 63) : (u64)(i64)x; }

/* indices */
FN i64 floor_div(i64 a, i64 b) { i64 q = a / b; return q - (a % b < 0); }
FN i64 floor_mod(i64 a, i64 b) { i64 r = a % b; return r + (r < 0 ? b : 0); }
FN i64 clamp_index(i64 v, i64 lo, i64 hi) { v = v < lo ? lo : v; return v > hi ? hi : v; }

/* integers */
#define INT(T, C, U) \
  FN C min_##T(C a, C b) { return a < b ? a : b; } \
  FN C max_##T(C a, C b) { return a > b ? a : b; } \
  FN C shl_##T(C a, C b) { return (u64)b >= 8 * sizeof(C) ? (C)0 : (C)((U)a << (U)b); } \
  FN C floor_##T(C a) { return a; } FN C ceil_##T(C a) { return a; } \
  FN C round_##T(C a) { return a; } FN C trunc_##T(C a) { return a; } \
  FN C pow_##T(C a, C b) { \
    C r = 1; \
    if ((C)-1 < 0 && b < 0) return (C)(a == 1 ? 1 : a == (C)-1 ? ((U)b & 1 ? (C)-1 : 1) : 0); \
    for (U n = (U)b; n; n >>= 1) { if (n & 1) r = (C)((U)r * (U)a); a = (C)((U)a * (U)a); } \
    return r; \
  }
#define SINT(T, C, U) INT(T, C, U) \
  FN C abs_##T(C a) { return (C)(a < 0 ? (U)0 - (U)a : (U)a); } \
  FN C sign_##T(C a) { return (C)((a > 0) - (a < 0)); } \
  FN C shr_##T(C a, C b) { return (u64)b >= 8 * sizeof(C) ? (C)(a < 0 ? -1 : 0) : (C)(a >> b); } \
  FN C div_##T(C a, C b) { return (C)(b == 0 ? 0 : b == -1 ? (C)((U)0 - (U)a) : a / b); } \
  FN C fmod_##T(C a, C b) { return (C)(b == 0 || b == -1 ? 0 : a % b); } \
  FN C mod_##T(C a, C b) { C r = fmod_##T(a, b); return (C)(r != 0 && (r < 0) != (b < 0) ? r + b : r); }
#define UINT(T, C) INT(T, C, C) \
  FN C abs_##T(C a) { return a; } FN C sign_##T(C a) { return (C)(a > 0); } \
  FN C shr_##T(C a, C b) { return (u64)b >= 8 * sizeof(C) ? (C)0 : (C)(a >> b); } \
  FN C div_##T(C a, C b) { return (C)(b == 0 ? 0 : a / b); } \
  FN C fmod_##T(C a, C b) { return (C)(b == 0 ? 0 : a % b); } \
  FN C mod_##T(C a, C b) { return fmod_##T(a, b); }
SINT(i8, i8, u8) SINT(i16, i16, u16) SINT(i32, i32, u32) SINT(i64, i64, u64)
UINT(u8, u8) UINT(u16, u16) UINT(u32, u32) UINT(u64, u64)
FN u8 min_bool(u8 a, u8 b) { return a & b; }
FN u8 max_bool(u8 a, u8 b) { return a | b; }

/* floats: minimum and maximum keep NaN */
#define REAL(T, C, S) \
  FN C max_##T(C a, C b) { C m = a > b ? a : b; return a != a ? a : m; } \
  FN C min_##T(C a, C b) { C m = a < b ? a : b; return a != a ? a : m; } \
  FN C maxc_##T(C a, C c) { return c > a ? c : a; } /* c is no NaN */ \
  FN C minc_##T(C a, C c) { return c < a ? c : a; } \
  FN u8 isnan_##T(C a) { return (u8)(a != a); } \
  FN C sign_##T(C a) { return a > 0 ? (C)1 : a < 0 ? (C)-1 : a; } \
  FN C abs_##T(C a) { return __builtin_fabs##S(a); } \
  FN C sqrt_##T(C a) { return __builtin_sqrt##S(a); } \
  FN C floor_##T(C a) { return __builtin_floor##S(a); } \
  FN C ceil_##T(C a) { return __builtin_ceil##S(a); } \
  FN C trunc_##T(C a) { return __builtin_trunc##S(a); } \
  FN C round_##T(C a) { return __builtin_rint##S(a); } \
  FN C fmod_##T(C a, C b) { return fmod##S(a, b); } \
  FN C mod_##T(C a, C b) { C r = fmod##S(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; } \
  FN C pow_##T(C a, C b) { return pow##S(a, b); } \
  FN C sin_##T(C a) { return sin##S(a); } FN C cos_##T(C a) { return cos##S(a); } FN C tan_##T(C a) { return tan##S(a); } \
  FN C asin_##T(C a) { return asin##S(a); } FN C acos_##T(C a) { return acos##S(a); } FN C atan_##T(C a) { return atan##S(a); } \
  FN C sinh_##T(C a) { return sinh##S(a); } FN C cosh_##T(C a) { return cosh##S(a); } \
  FN C asinh_##T(C a) { return asinh##S(a); } FN C acosh_##T(C a) { return acosh##S(a); } FN C atanh_##T(C a) { return atanh##S(a); }
REAL(f32, float, f) REAL(f64, double, )
FN double exp_f64(double x) { return exp(x); }
FN double log_f64(double x) { return log(x); }
FN double tanh_f64(double x) { return tanh(x); }
FN double erf_f64(double x) { return erf(x); }
#pragma omp declare reduction(max_f32 : float : omp_out = max_f32(omp_out, omp_in)) initializer(omp_priv = omp_orig)
#pragma omp declare reduction(min_f32 : float : omp_out = min_f32(omp_out, omp_in)) initializer(omp_priv = omp_orig)
#pragma omp declare reduction(max_f64 : double : omp_out = max_f64(omp_out, omp_in)) initializer(omp_priv = omp_orig)
#pragma omp declare reduction(min_f64 : double : omp_out = min_f64(omp_out, omp_in)) initializer(omp_priv = omp_orig)

/* e^x = (2^h)²·e^r with h = round(x/2ln2), |r| ≤ ln2, and a minimax polynomial
   in r. Two factors 2^h make denormals and the largest floats come out right;
   h + 127 stands in the low bits of t, ready to be shifted to the exponent. The
   bounds are put on the bits: as floats they would cost a comparison and a
   choice each, because of NaN. At most 1.5 units in the last place. */
FN float exp_f32(float x) {
  i32 up = bits_i32_f32(x);
  up = up < 0x42b20000 ? up : 0x42b20000; /* 89 */
  u32 in = (u32)up;
  in = in < 0xc2d00000u ? in : 0xc2d00000u; /* -104 */
  float c = bits_f32_u32(in);
  float t = c * 0x1.715476p-1f + 0x1.8000fep23f;
  float h = t - 0x1.8000fep23f;
  float r = (c - h * 0x1.62e4p0f) - h * 0x1.7f7d1cp-19f;
  float p = 0x1.9b4792p-13f;
  p = p * r + 0x1.71bedep-10f;
  p = p * r + 0x1.11285ap-7f;
  p = p * r + 0x1.5549fep-5f;
  p = p * r + 0x1.55550ep-3f;
  p = p * r + 0x1.00000cp-1f;
  p = p * (r * r) + r + 1.0f;
  float s = bits_f32_u32(bits_u32_f32(t) << 23);
  p = p * s * s;
  return x != x ? x : p;
}

/* e^x for x ≤ 0, as softmax has it: n = round(x/ln2), |r| ≤ ln2/2, one term less
   of the polynomial, one step of the reduction where it is fused (n·ln2 is off by
   n·2e-9 then), and no upper bound. n + 151 stands in the low bits of t, so that
   both factors are normal and their product rounds to a denormal once. At most
   4.5 units in the last place (2.2 above -30, and without the fusion). */
FN float expneg_f32(float x) {
  float c = x < -104.0f ? -104.0f : x;
  float t = c * 0x1.715476p0f + 0x1.80012ep23f;
  float n = t - 0x1.80012ep23f;
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  float r = __builtin_fmaf(n, -0x1.62e43p-1f, c);
#else
  float r = (c - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
#endif
  float p = 0x1.0fa872p-7f * r + 0x1.5739c4p-5f;
  p = p * r + 0x1.555a16p-3f;
  p = p * r + 0x1.fffdc2p-2f;
  p = p * r + 0x1.fffff8p-1f;
  p = p * r + 1.0f;
  return p * bits_f32_u32(bits_u32_f32(t) << 23) * 0x1p-24f;
}
FN double expneg_f64(double x) { return exp(x); }

/* The same of whole registers, where one instruction scales by 2^n: a shorter
   reduction, and bounds that keep NaN. At most 0.8 units in the last place. */
#ifdef __AVX512F__
typedef float lanes16 __attribute__((vector_size(64)));
typedef i32 places16 __attribute__((vector_size(64)));
#ifdef __clang__
#include <immintrin.h>
#define MAXI16(A, B) ((places16)_mm512_max_epi32((__m512i)(A), (__m512i)(B)))
#define PICK16(T, I) ((lanes16)_mm512_permutex2var_ps(_mm512_load_ps(T), (__m512i)(I), _mm512_load_ps(T + 16)))
#define MAX16(A, B) ((lanes16)_mm512_max_ps((__m512)(A), (__m512)(B)))
#define MIN16(A, B) ((lanes16)_mm512_min_ps((__m512)(A), (__m512)(B)))
#define SCALE16(A, B) ((lanes16)_mm512_scalef_ps((__m512)(A), (__m512)(B)))
#define ROUND16(A) ((lanes16)_mm512_roundscale_ps((__m512)(A), 0))
#define NAN16(A) _mm512_cmp_ps_mask((__m512)(A), (__m512)(A), 3)
#define TURN16(A, ...) __builtin_shufflevector(A, A, __VA_ARGS__)
#else
#define MAXI16(A, B) __builtin_ia32_pmaxsd512_mask(A, B, A, -1)
#define PICK16(T, I) __builtin_ia32_vpermt2varps512_mask(I, *(const lanes16 *)(T), *(const lanes16 *)(T + 16), -1)
#define MAX16(A, B) __builtin_ia32_maxps512_mask(A, B, A, -1, 4)
#define MIN16(A, B) __builtin_ia32_minps512_mask(A, B, A, -1, 4)
#define SCALE16(A, B) __builtin_ia32_scalefps512_mask(A, B, A, -1, 4)
#define ROUND16(A) __builtin_ia32_rndscaleps_mask(A, 0, A, -1, 4)
#define NAN16(A) __builtin_ia32_cmpps512_mask(A, A, 3, -1, 4)
#define TURN16(A, ...) __builtin_shuffle(A, (places16){__VA_ARGS__})
#endif
FN lanes16 all16(float x) { return (lanes16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
FN lanes16 exp16(lanes16 x) {
  lanes16 c = MIN16(all16(89.0f), MAX16(all16(-104.0f), x)); /* the second operand if one is NaN */
  lanes16 t = c * 0x1.715476p0f + 0x1.8p23f;
  lanes16 n = t - 0x1.8p23f;
  lanes16 r = (c - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  lanes16 p = r * 0x1.6a23cep-10f + 0x1.123a20p-7f;
  p = p * r + 0x1.5558f2p-5f;
  p = p * r + 0x1.555492p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return SCALE16(p, n);
}

FN lanes16 expneg16(lanes16 x) {
  lanes16 c = MAX16(all16(-104.0f), x);
  lanes16 n = ROUND16(c * 0x1.715476p0f);
  lanes16 r = c - n * 0x1.62e43p-1f;
  lanes16 p = r * 0x1.0fa872p-7f + 0x1.5739c4p-5f;
  p = p * r + 0x1.555a16p-3f;
  p = p * r + 0x1.fffdc2p-2f;
  p = p * r + 0x1.fffff8p-1f;
  p = p * r + 1.0f;
  return SCALE16(p, n);
}

/* tanh and erf in pieces: four to a power of two from 2^-4 and 2^-6 on, each a
   polynomial of degree 5 in the distance from its middle, the first one in x
   itself. Five bits of x number them, and one instruction takes a coefficient of
   all lanes from two registers. At most 1.4 and 1.2 units in the last place. */
static const float tanh_pieces[6][32] __attribute__((aligned(64))) = {
  {0x1.f4bfd6p-1f, 0x1.fbd50ap-1f, 0x1.fe767ap-1f, 0x1.ff6f18p-1f, 0x1.ffdfa8p-1f, 0x1.fffbap-1f, 0x1.ffff68p-1f, 0x1.ffffecp-1f,
   0x1.fffffep-1f, 0x1p0f, 0x1p0f, 0x1p0f, 0, 0x1.5f22d2p-4f, 0x1.9e9356p-4f, 0x1.ddd092p-4f,
   0x1.1e1ddp-3f, 0x1.5c9308p-3f, 0x1.9a5f1cp-3f, 0x1.d7665cp-3f, 0x1.18a39ap-2f, 0x1.52c2c6p-2f, 0x1.8a87e2p-2f, 0x1.bfae6ap-2f,
   0x1.05087p-1f, 0x1.3157ep-1f, 0x1.5789p-1f, 0x1.77d838p-1f, 0x1.9e5cb6p-1f, 0x1.c278a6p-1f, 0x1.d9c6fap-1f, 0x1.e8789ep-1f},
  {0x1.64108ap-5f, 0x1.09a7a6p-6f, 0x1.88ef68p-8f, 0x1.21a7aep-9f, 0x1.02bee2p-11f, 0x1.1832dep-14f, 0x1.2f5ffap-17f, 0x1.4875bep-20f,
   0x1.05a62p-24f, 0x1.32b486p-30f, 0x1.677f5p-36f, 0x1.a4e8p-42f, 0x1p0f, 0x1.fc3ccp-1f, 0x1.fac13ep-1f, 0x1.f9085ap-1f,
   0x1.f601cap-1f, 0x1.f12bp-1f, 0x1.eb715ap-1f, 0x1.e4dfbp-1f, 0x1.d98b38p-1f, 0x1.c7f724p-1f, 0x1.b3ff3p-1f, 0x1.9e23aep-1f,
   0x1.7aeae8p-1f, 0x1.49e6cp-1f, 0x1.197fcep-1f, 0x1.d834d2p-2f, 0x1.615002p-2f, 0x1.cea746p-3f, 0x1.265e34p-3f, 0x1.6fcfa6p-4f},
  {-0x1.5c34e6p-5f, -0x1.077dd2p-6f, -0x1.87e174p-8f, -0x1.217b44p-9f, -0x1.02adf6p-11f, -0x1.1b0276p-14f, -0x1.2504dap-17f, -0x1.ce7a6ap-20f,
   0x1.71e28ep-23f, -0x1.7b80d8p-28f, -0x1.bcda8ap-34f, -0x1.04afe8p-39f, 0, -0x1.5cb2c4p-4f, -0x1.995b6cp-4f, -0x1.d608e6p-4f,
   -0x1.185d9cp-3f, -0x1.52e808p-3f, -0x1.89f148p-3f, -0x1.bdf0acp-3f, -0x1.039294p-2f, -0x1.2dc33cp-2f, -0x1.500d84p-2f, -0x1.6a0632p-2f,
   -0x1.826ad6p-2f, -0x1.897e8p-2f, -0x1.79cfbcp-2f, -0x1.5a940ap-2f, -0x1.1df144p-2f, -0x1.971558p-3f, -0x1.105ccep-3f, -0x1.5edbd2p-4f},
  {0x1.bbce16p-6f, 0x1.5994dcp-7f, 0x1.039754p-8f, 0x1.80e94ap-10f, 0x1.587432p-12f, 0x1.7551c8p-15f, 0x1.94410ap-18f, 0x1.b5adb6p-21f,
   0x1.594386p-25f, 0x1.94b072p-31f, 0x1.da81f2p-37f, 0x1.1784a4p-42f, -0x1.55550ap-2f, -0x1.4bc4a4p-2f, -0x1.451442p-2f, -0x1.403dfap-2f,
   -0x1.3a7dbcp-2f, -0x1.2fdde6p-2f, -0x1.204778p-2f, -0x1.0edfcep-2f, -0x1.e9341ap-3f, -0x1.98c23cp-3f, -0x1.42d534p-3f, -0x1.d674f8p-4f,
   -0x1.bda18ap-5f, 0x1.d73c98p-7f, 0x1.06fc32p-4f, 0x1.84581ep-4f, 0x1.c68b3ap-4f, 0x1.97d424p-4f, 0x1.33e152p-4f, 0x1.a85e4ep-5f},
  {-0x1.976e6ap-7f, -0x1.508616p-8f, -0x1.fcebf2p-10f, -0x1.78f7dp-11f, -0x1.640b08p-13f, -0x1.551ed4p-16f, -0x1.23d62ap-18f, 0x1.a626cap-20f,
   -0x1.12f344p-22f, 0x1.11328ap-28f, 0x1.403deap-34f, 0x1.774a54p-40f, 0, 0x1.40c72p-1f, -0x1.e83b02p1f, -0x1.41dd24p2f,
   -0x1.f37f38p-3f, 0x1.ed80cep-1f, 0x1.b9fbfp-3f, -0x1.ab0bdep-1f, 0x1.4bf5fap-3f, 0x1.ecdadcp-3f, 0x1.07aa14p-2f, 0x1.4095e2p-4f,
   0x1.53af96p-3f, 0x1.eeb05p-4f, 0x1.828772p-4f, 0x1.e52dacp-6f, 0x1.02936cp-8f, -0x1.4c6db4p-6f, -0x1.ab5694p-6f, -0x1.62669ap-6f},
  {0x1.04a3f4p-8f, 0x1.f5f2e4p-10f, 0x1.93ace4p-11f, 0x1.328b2p-12f, 0x1.1e07e4p-14f, 0x1.35ca88p-17f, 0x1.4f3be6p-20f, 0x1.6b168ep-23f,
   0x1.419cc2p-27f, 0x1.791c7ap-33f, 0x1.b9b53p-39f, 0x1.feb1ccp-45f, 0x1.100ecap-3f, 0x1.aebc64p2f, -0x1.2e9198p5f, -0x1.5857a4p5f,
   -0x1.1c692cp1f, 0x1.400708p2f, 0x1.186c5cp-1f, -0x1.f3a696p1f, 0x1.9b477ap-4f, 0x1.e7d49p-3f, 0x1.989708p-3f, -0x1.779158p-3f,
   -0x1.9c733ep-6f, -0x1.ecc364p-5f, -0x1.a04208p-5f, -0x1.f991aap-5f, -0x1.055aa2p-5f, -0x1.303ca8p-7f, 0x1.492dc2p-10f, 0x1.28fbcep-8f}};
static const float erf_pieces[6][32] __attribute__((aligned(64))) = {
  {0x1.ff4048p-1f, 0x1.fff2dp-1f, 0x1.ffff7p-1f, 0x1.fffffcp-1f, 0, 0x1.8d20dcp-6f, 0x1.d54e0cp-6f, 0x1.0ebbcap-5f,
   0x1.44d6ep-5f, 0x1.8cf1f6p-5f, 0x1.d500a8p-5f, 0x1.0e805cp-4f, 0x1.44703ep-4f, 0x1.8c36bep-4f, 0x1.d3cbf8p-4f, 0x1.0d939p-3f,
   0x1.42d7fcp-3f, 0x1.89501p-3f, 0x1.cf076ep-3f, 0x1.09eed6p-2f, 0x1.3c9aa8p-2f, 0x1.7e1594p-2f, 0x1.bccfecp-2f, 0x1.f86faap-2f,
   0x1.25b8a8p-1f, 0x1.569244p-1f, 0x1.7fb9cp-1f, 0x1.a1551ap-1f, 0x1.c6dad2p-1f, 0x1.e5768cp-1f, 0x1.f4f694p-1f, 0x1.fbe61ep-1f},
  {0x1.d413f4p-8f, 0x1.33631p-11f, 0x1.e9b5e6p-16f, 0x1.d9371ap-21f, 0x1.06eba8p-3f, 0x1.20bb54p0f, 0x1.20adccp0f, 0x1.209e04p0f,
   0x1.20821cp0f, 0x1.20550cp0f, 0x1.201f02p0f, 0x1.1fe002p0f, 0x1.1f70c4p0f, 0x1.1ebd54p0f, 0x1.1de698p0f, 0x1.1cecdcp0f,
   0x1.1b3572p0f, 0x1.1874dep0f, 0x1.153068p0f, 0x1.116cd8p0f, 0x1.0ae55p0f, 0x1.00abdp0f, 0x1.e9d5a8p-1f, 0x1.cfc41ep-1f,
   0x1.a5074ep-1f, 0x1.681ff2p-1f, 0x1.2a8ddp-1f, 0x1.dfca26p-2f, 0x1.45e99cp-2f, 0x1.5ce596p-3f, 0x1.499d48p-4f, 0x1.12ceb2p-5f},
  {-0x1.073d8ap-6f, -0x1.a617fep-10f, -0x1.9174d2p-14f, -0x1.58cfp-19f, 0, -0x1.7e711p-6f, -0x1.c0ff6p-6f, -0x1.24b782p-5f,
   -0x1.3fa62ap-5f, -0x1.8e1cdcp-5f, -0x1.d8ea9ep-5f, -0x1.0fa15ap-4f, -0x1.4250cep-4f, -0x1.88d568p-4f, -0x1.d0c85p-4f, -0x1.0b1234p-3f,
   -0x1.3e8494p-3f, -0x1.8122a6p-3f, -0x1.c2e4cap-3f, -0x1.000a74p-2f, -0x1.2c2b16p-2f, -0x1.60e298p-2f, -0x1.8df90ep-2f, -0x1.b2b576p-2f,
   -0x1.d99f7ap-2f, -0x1.ef2eaap-2f, -0x1.e52b7p-2f, -0x1.c1cc1cp-2f, -0x1.6ea55p-2f, -0x1.dfbb7ep-3f, -0x1.0bd2e8p-3f, -0x1.019376p-4f},
  {0x1.63fa34p-6f, 0x1.697d9cp-9f, 0x1.99cf86p-13f, 0x1.0a57ccp-17f, -0x1.8121fap-2f, -0x1.56437ep-2f, -0x1.4ef072p-2f, -0x1.de909p-2f,
   -0x1.6e3cf2p-2f, -0x1.83d5acp-2f, -0x1.89c726p-2f, -0x1.84a2fp-2f, -0x1.77b9d8p-2f, -0x1.7485ecp-2f, -0x1.75cf7ep-2f, -0x1.714536p-2f,
   -0x1.6a5aaap-2f, -0x1.5e71c2p-2f, -0x1.543142p-2f, -0x1.434cccp-2f, -0x1.2b42dep-2f, -0x1.053fb6p-2f, -0x1.b574dep-3f, -0x1.5a5a4p-3f,
   -0x1.9c1044p-4f, -0x1.a484fep-7f, 0x1.fde7e8p-5f, 0x1.e4ccbp-4f, 0x1.4cb49ap-3f, 0x1.437556p-3f, 0x1.d6635ep-4f, 0x1.143e42p-4f},
  {-0x1.3c618ep-6f, -0x1.bcc49ap-9f, -0x1.2fdcc4p-12f, -0x1.c29422p-16f, 0, -0x1.d16a88p7f, -0x1.413ec6p8f, 0x1.61be7ep9f,
   -0x1.3a794p5f, 0x1.a81e4ap3f, 0x1.2de1a6p5f, 0x1.bf448p4f, -0x1.0b2d0cp2f, -0x1.6b5f28p2f, 0x1.a91384p-1f, -0x1.3872bcp-2f,
   -0x1.b5edeep-4f, -0x1.c83a8p-1f, 0x1.074c48p0f, -0x1.0f12f4p0f, 0x1.960d68p-5f, 0x1.efff74p-4f, 0x1.3dd3bcp-3f, 0x1.bffc4cp-4f,
   0x1.63eb8ep-3f, 0x1.5855ccp-3f, 0x1.19768p-3f, 0x1.6ed0cep-4f, 0x1.c849a8p-6f, -0x1.ee6d7cp-6f, -0x1.9257b6p-5f, -0x1.60d03p-5f},
  {0x1.5a99aep-7f, 0x1.730114p-9f, 0x1.5af1a8p-12f, 0x1.4e44acp-16f, 0x1.ea566ap-5f, -0x1.526544p13f, -0x1.8b394cp13f, 0x1.791ae4p14f,
   -0x1.176aap10f, 0x1.339f5p8f, 0x1.72af7cp9f, 0x1.db8c52p8f, -0x1.dd020ep5f, -0x1.08c2cp6f, 0x1.eb32d4p2f, -0x1.82b586p1f,
   -0x1.2fe7c2p0f, -0x1.60d97ap2f, 0x1.204ae2p2f, -0x1.311c46p2f, -0x1.d4d4c4p-3f, -0x1.7b4eap-5f, -0x1.86c994p-9f, -0x1.d7bf26p-4f,
   -0x1.7755a2p-6f, -0x1.3d1c86p-5f, -0x1.d9e29cp-5f, -0x1.1ff1p-4f, -0x1.f5ecbp-5f, -0x1.f6c802p-6f, -0x1.267034p-9f, 0x1.72c83p-7f}};
FN lanes16 pieces16(lanes16 x, const float t[6][32], i32 least, float most, int whole) {
  lanes16 c = MIN16(all16(most), (lanes16)((places16)x & 0x7fffffff));
  places16 b = (places16)c, i = MAXI16(b, least - (places16){0}) >> 21;
  places16 first = b < least + 0x200000;
  lanes16 u = c - (lanes16)(((b & ~0x1fffff) | 0x100000) & ~first);
  lanes16 p = PICK16(t[5], i);
  p = p * u + PICK16(t[4], i);
  p = p * u + PICK16(t[3], i);
  p = p * u + PICK16(t[2], i);
  p = p * u + PICK16(t[1], i);
  lanes16 at = PICK16(t[0], i);
  if (!whole) at = (lanes16)((places16)at | ((places16)u & first)); /* the first piece is x and a polynomial */
  p = p * u + at;
  return (lanes16)((places16)p | ((places16)x & (i32)0x80000000));
}
FN lanes16 tanh16(lanes16 x) { return pieces16(x, tanh_pieces, 0x3d800000, 9.1f, 1); }
FN lanes16 erf16(lanes16 x) { return pieces16(x, erf_pieces, 0x3c800000, 0x1.fffffep1f, 0); }
#define REGISTER(F) FN void F##_f32_v16(float *x) { lanes16 r; __builtin_memcpy(&r, x, 64); r = F##16(r); __builtin_memcpy(x, &r, 64); }
REGISTER(exp) REGISTER(expneg) REGISTER(tanh) REGISTER(erf)
/* sin x, and cos x as the sine a quarter turn on, of whole registers in f64:
   x = n·π/2 + r. Beyond 2^20 turns the C library's, one by one. At most 0.51
   units in the last place. */
FN void turn_f32_v16(float *x, i64 quarter) {
  float y[16] __attribute__((aligned(64)));
  int far = 0;
  _Pragma("omp simd reduction(|:far)") for (int l = 0; l < 16; l++) far |= !(__builtin_fabsf(x[l]) < 0x1p20f);
  _Pragma("omp simd") for (int l = 0; l < 16; l++) {
    double a = x[l], t = __builtin_fma(a, 0x1.45f306dc9c883p-1, 0x1.8p52);
    double n = t - 0x1.8p52;
    i64 q = bits_i64_f64(t) + quarter;
    double r = __builtin_fma(n, -0x1.1a62633145c07p-54, __builtin_fma(n, -0x1.921fb54442d18p+0, a));
    double z = r * r;
    double s = 0x1.6cd878c3b46a7p-19 * z - 0x1.a00f9e2cae774p-13;
    s = s * z + 0x1.11110896efbb2p-7;
    s = s * z - 0x1.5555554cbac77p-3;
    s = (s * z + 1.0) * r;
    double c = 0x1.99342e0ee5069p-16 * z - 0x1.6c087e80f1e27p-10;
    c = c * z + 0x1.55553e1053a42p-5;
    c = c * z - 0x1.ffffffd0c5e81p-2;
    c = c * z + 1.0;
    double v = q & 1 ? c : s;
    y[l] = (float)(q & 2 ? -v : v);
  }
  if (far)
    for (int l = 0; l < 16; l++)
      if (!(__builtin_fabsf(x[l]) < 0x1p20f)) y[l] = quarter ? cosf(x[l]) : sinf(x[l]);
  __builtin_memcpy(x, y, 64);
}
FN void sin_f32_v16(float *x) { turn_f32_v16(x, 0); }
FN void cos_f32_v16(float *x) { turn_f32_v16(x, 1); }
/* The extreme of a register's lanes, NaN if one of them is. */
#define EXTREME(F, OP) \
  FN float F##_of_v16(const float *x) { \
    lanes16 a; \
    __builtin_memcpy(&a, x, 64); \
    int nan = NAN16(a); \
    a = OP(a, TURN16(a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
    a = OP(a, TURN16(a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
    a = OP(a, TURN16(a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
    a = OP(a, TURN16(a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)); \
    return nan ? F32_NAN : a[0]; \
  }
EXTREME(max, MAX16) EXTREME(min, MIN16)
#endif

/* ln x (Cephes logf): x = 2^e·m with m in [√½, √2). At most 0.8 units in the
   last place. */
FN float log_f32(float x) {
  float y = x < 0x1p-126f ? x * 0x1p25f : x;
  i32 b = bits_i32_f32(y);
  i32 e = ((b - 0x3f3504f3) >> 23);
  float m = bits_f32_i32(b - (e << 23)) - 1.0f;
  float fe = (float)(e - (x < 0x1p-126f ? 25 : 0));
  float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  p = p * m * z;
  p = p + fe * -2.12194440e-4f - 0.5f * z;
  float r = m + p + fe * 0.693359375f;
  r = x == 0.0f ? -F32_INF : r;
  r = x == F32_INF ? x : r;
  return x < 0.0f || x != x ? F32_NAN : r;
}

/* tanh x = -m/(m+2) with m = e^-2|x| - 1, which is exact in relative terms near
   zero too: m = 2^n·(e^r - 1) + (2^n - 1). At most 2.5 units in the last place,
   and a third faster than a polynomial near zero beside a quotient elsewhere. */
FN float tanh_f32(float x) {
  i32 up = bits_i32_f32(x) & 0x7fffffff;
  up = up < 0x41200000 ? up : 0x41200000; /* 10 */
  float a = bits_f32_i32(up);
  float t = a * -0x1.715476p1f + 0x1.8000fep23f;
  float n = t - 0x1.8000fep23f;
  float r = (a * -2.0f - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  float p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  float s = bits_f32_u32(bits_u32_f32(t) << 23);
  float m = p * s + (s - 1.0f);
  float q = __builtin_copysignf(-m / (m + 2.0f), x);
  return x != x ? x : q;
}

/* erf: minimax polynomials on both sides of 475/512. At most 1.2 units in the
   last place. */
FN float erf_f32(float x) {
  float t = __builtin_fabsf(x), s = x * x;
  float r = -1.72853470e-5f * t + 3.83197126e-4f;
  float u = -3.88396438e-3f * t + 2.42546219e-2f;
  r = r * s + u;
  r = r * t - 1.06777877e-1f;
  r = r * t - 6.34846687e-1f;
  r = r * t - 1.28717512e-1f;
  r = r * t - t;
  r = __builtin_copysignf(1.0f - exp_f32(r), x);
  float p = -5.96761703e-4f;
  p = p * s + 4.99119423e-3f;
  p = p * s - 2.67681349e-2f;
  p = p * s + 1.12819925e-1f;
  p = p * s - 3.76125336e-1f;
  p = p * s + 1.28379166e-1f;
  p = p * x + x;
  return x != x ? x : t > 0.927734375f ? r : p;
}

/* d[c·ds + r] = s[r·ss + c] for r < rows, c < cols, in blocks that registers
   hold: interleaving halves of rows log2 W times exchanges the axes. The last
   blocks of a row or column overlap those before them. 1,024 rows at a time are
   what the first caches hold lines of until the next columns are read. */
#define TRANSPOSE(W, T, LO, HI) \
  typedef T block##W##_##T __attribute__((vector_size(sizeof(T) * W))); \
  typedef T loose##W##_##T __attribute__((vector_size(sizeof(T) * W), aligned(sizeof(T)), may_alias)); \
  FN void transpose_block##W##_##T(T *d, i64 ds, const T *s, i64 ss) { \
    const block##W##_##T lo = LO, hi = HI; \
    block##W##_##T a[W], b[W]; \
    _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) a[i] = *(const loose##W##_##T *)(s + i * ss); \
    _Pragma("GCC unroll 4") for (int k = 1; k < W; k *= 2) { \
      _Pragma("GCC unroll 8") for (int i = 0; i < W / 2; i++) { \
        b[2 * i] = __builtin_shuffle(a[i], a[i + W / 2], lo); \
        b[2 * i + 1] = __builtin_shuffle(a[i], a[i + W / 2], hi); \
      } \
      _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) a[i] = b[i]; \
    } \
    _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) *(loose##W##_##T *)(d + i * ds) = a[i]; \
  } \
  ALL_BLOCKS(transpose_by##W##_##T, transpose_block##W##_##T, W, T)
#define ALL_BLOCKS(NAME, BLOCK, W, T) \
  static __attribute__((noinline, unused)) void NAME(T *d, i64 ds, const T *s, i64 ss, i64 rows, i64 cols) { \
    for (i64 r0 = 0; r0 < rows; r0 += 1024) { \
      i64 r1 = r0 + 1024 < rows ? r0 + 1024 : rows; \
      for (i64 c = 0; c < cols; c += W) { \
        i64 at = c + W > cols ? cols - W : c; \
        for (i64 r = r0; r < r1; r += W) { \
          i64 from = r + W > rows ? rows - W : r; \
          BLOCK(d + at * ds + from, ds, s + from * ss + at, ss); \
        } \
      } \
    } \
  }
TRANSPOSE(4, u32, ((block4_u32){0, 4, 1, 5}), ((block4_u32){2, 6, 3, 7}))
/* The same with half of the exchange done by loads: parts of rows that lie far
   apart are inserted in one register, which takes no shuffle. Four columns at a
   time, each line is read four times: where rows lie a multiple of 2 KB apart,
   their lines push each other out of the first cache between that. */
#define QUADS(W, T, LOADS, ...) \
  FN void transpose_quads##W(u32 *d, i64 ds, const u32 *s, i64 ss) { \
    const block##W##_u32 lo = LO##W, hi = HI##W, lo2 = LO2##W, hi2 = HI2##W; \
    _Pragma("GCC unroll 4") for (int q = 0; q < W; q += 4) { \
      block##W##_u32 a[4], b[4]; \
      _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { \
        const quad *p = (const quad *)(s + q + i * ss); \
        __asm__(LOADS : "=&x"(a[i]) : __VA_ARGS__); \
      } \
      _Pragma("GCC unroll 2") for (int i = 0; i < 4; i += 2) { \
        b[i] = __builtin_shuffle(a[i], a[i + 1], lo); \
        b[i + 1] = __builtin_shuffle(a[i], a[i + 1], hi); \
      } \
      _Pragma("GCC unroll 2") for (int i = 0; i < 2; i++) { \
        *(loose##W##_u32 *)(d + (q + 2 * i) * ds) = __builtin_shuffle(b[i], b[i + 2], lo2); \
        *(loose##W##_u32 *)(d + (q + 2 * i + 1) * ds) = __builtin_shuffle(b[i], b[i + 2], hi2); \
      } \
    } \
  } \
  ALL_BLOCKS(transpose_quads_by##W, transpose_quads##W, W, u32)
#define ROW(I) "m"(*(const quad *)((const u32 *)p + (I) * ss))
typedef u32 quad __attribute__((vector_size(16), aligned(4), may_alias));
#ifdef __AVX__
#define LO8 ((block8_u32){0, 8, 1, 9, 4, 12, 5, 13})
#define HI8 ((block8_u32){2, 10, 3, 11, 6, 14, 7, 15})
#define LO28 ((block8_u32){0, 1, 8, 9, 4, 5, 12, 13})
#define HI28 ((block8_u32){2, 3, 10, 11, 6, 7, 14, 15})
TRANSPOSE(8, u32, ((block8_u32){0, 8, 1, 9, 2, 10, 3, 11}), ((block8_u32){4, 12, 5, 13, 6, 14, 7, 15}))
QUADS(8, u32, "vmovups %1, %x0\n\tvinsertf128 $1, %2, %0, %0", ROW(0), ROW(4))
#endif
#ifdef __AVX512F__
#define LO16 ((block16_u32){0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29})
#define HI16 ((block16_u32){2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31})
#define LO216 ((block16_u32){0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29})
#define HI216 ((block16_u32){2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31})
TRANSPOSE(16, u32, ((block16_u32){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}), ((block16_u32){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}))
QUADS(16, u32, "vmovups %1, %x0\n\tvinsertf32x4 $1, %2, %0, %0\n\tvinsertf32x4 $2, %3, %0, %0\n\tvinsertf32x4 $3, %4, %0, %0", ROW(0), ROW(4), ROW(8), ROW(12))
#endif
FN void transpose_32(void *dst, i64 ds, const void *src, i64 ss, i64 rows, i64 cols) {
  u32 *d = dst;
  const u32 *s = src;
#ifdef __AVX512F__
  if (rows >= 16 && cols >= 16) { (ss % 512 ? transpose_quads_by16 : transpose_by16_u32)(d, ds, s, ss, rows, cols); return; }
#endif
#ifdef __AVX__
  if (rows >= 8 && cols >= 8) { (ss % 512 ? transpose_quads_by8 : transpose_by8_u32)(d, ds, s, ss, rows, cols); return; }
#endif
  if (rows >= 4 && cols >= 4) { transpose_by4_u32(d, ds, s, ss, rows, cols); return; }
  for (i64 c = 0; c < cols; c++)
    for (i64 r = 0; r < rows; r++) memcpy(d + c * ds + r, s + r * ss + c, 4);
}
TRANSPOSE(16, u8, ((block16_u8){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}), ((block16_u8){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}))
/* Fewer than 16 elements, at least 4: pieces that overlap. */
FN void copy_few(u8 *d, const u8 *s, i64 n) {
  if (n >= 8) { memcpy(d, s, 8); memcpy(d + n - 8, s + n - 8, 8); }
  else { memcpy(d, s, 4); memcpy(d + n - 4, s + n - 4, 4); }
}
/* Blocks of which a side is shorter, by way of memory. */
static __attribute__((noinline, unused)) void transpose_few(u8 *d, i64 ds, const u8 *s, i64 ss, i64 rows, i64 cols) {
  u8 in[256], out[256];
  memset(in, 0, sizeof in);
  const i64 n = rows < 16 ? cols : rows;
  for (i64 c = 0; c < n; c += 16) {
    const i64 at = c + 16 > n ? n - 16 : c;
    if (rows < 16) {
      for (i64 r = 0; r < rows; r++) memcpy(in + 16 * r, s + r * ss + at, 16);
      transpose_block16_u8(out, 16, in, 16);
      for (i64 i = 0; i < 16; i++) copy_few(d + (at + i) * ds, out + 16 * i, rows);
    } else {
      for (i64 i = 0; i < 16; i++) copy_few(in + 16 * i, s + (at + i) * ss, cols);
      transpose_block16_u8(out, 16, in, 16);
      for (i64 r = 0; r < cols; r++) memcpy(d + r * ds + at, out + 16 * r, 16);
    }
  }
}
FN void transpose_8(void *dst, i64 ds, const void *src, i64 ss, i64 rows, i64 cols) {
  u8 *d = dst;
  const u8 *s = src;
  if (rows >= 16 && cols >= 16) { transpose_by16_u8(d, ds, s, ss, rows, cols); return; }
  if (rows >= 4 && cols >= 4 && rows + cols >= 20 && (rows >= 16 || cols >= 16)) { transpose_few(d, ds, s, ss, rows, cols); return; }
  for (i64 c = 0; c < cols; c++)
    for (i64 r = 0; r < rows; r++) d[c * ds + r] = s[r * ss + c];
}
#endif
