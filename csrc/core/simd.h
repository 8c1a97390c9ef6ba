// Sixteen float lanes for every instruction set: one register, two, or an array. All variants do the same operations in
// the same order on the same lanes, so that they give the same bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(RAMIFY_ISA_avx2) || defined(RAMIFY_ISA_avx512) || defined(RAMIFY_ISA_avx512bf16)
#include <immintrin.h>
#endif
#if defined(RAMIFY_ISA_avx512) || defined(RAMIFY_ISA_avx512bf16)
#define RAMIFY_LANES_512 1
#elif defined(RAMIFY_ISA_avx2)
#define RAMIFY_LANES_256 1
#endif

namespace ramify::RAMIFY_ISA {

constexpr std::size_t LANES = 16;

using bf16 = std::uint16_t;  // the upper half of a float
using f16 = std::uint16_t;   // IEEE 754 binary16

inline float bf16_to_float(bf16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16); }

// To nearest, ties to even; a NaN stays one.
inline bf16 float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<bf16>((bits >> 16) | 0x40);
  return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float f16_to_float(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value & 0x8000) << 16;
  const std::uint32_t exponent = (value >> 10) & 0x1f;
  const std::uint32_t mantissa = value & 0x3ff;
  if (exponent == 0) {
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
  }
  const std::uint32_t bits = exponent == 31 ? 0x7f800000 | (mantissa << 13) : ((exponent + 112) << 23) | (mantissa << 13);
  return std::bit_cast<float>(sign | bits);
}

#if defined(RAMIFY_LANES_512)

struct F32x16 {
  __m512 v;

  static F32x16 zero() { return {_mm512_setzero_ps()}; }
  static F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32x16 load(const std::int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
  static F32x16 load_bf16(const bf16* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  static F32x16 load_f16(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
  static F32x16 load_i8(const std::int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  // The first min(n, 16) floats, then zeros. n > 0.
  static F32x16 load_first(const float* p, std::size_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store_first(float* p, std::size_t n) const { _mm512_mask_storeu_ps(p, first(n), v); }
  void store_bf16(bf16* p) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    const __m512i kept = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(kept));
  }

  static __mmask16 first(std::size_t n) { return n >= LANES ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }
};

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b in each lane: b where one is a NaN.
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
// a < b ? yes : no in each lane.
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
// a * 2^n for the integer n that `biased` holds in its lowest bits (see exp).
inline F32x16 scale_by_exponent(F32x16 a, F32x16 biased) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(biased.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), shifted))};
}
struct Halves {
  __m256 lo, hi;
};
inline Halves halves(F32x16 a) { return {_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1)}; }

#elif defined(RAMIFY_LANES_256)

struct F32x16 {
  __m256 lo, hi;

  static F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F32x16 broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F32x16 load(const std::int32_t* p) {
    const auto* q = reinterpret_cast<const __m256i*>(p);
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(q)), _mm256_cvtepi32_ps(_mm256_loadu_si256(q + 1))};
  }
  static F32x16 load_bf16(const bf16* p) { return {widen(p), widen(p + 8)}; }
  static F32x16 load_f16(const f16* p) {
    const auto* q = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
  }
  static F32x16 load_i8(const std::int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  // The first min(n, 16) floats, then zeros. n > 0.
  static F32x16 load_first(const float* p, std::size_t n) {
    if (n >= LANES) return load(p);
    if (n >= 8) return {_mm256_loadu_ps(p), n == 8 ? _mm256_setzero_ps() : _mm256_maskload_ps(p + 8, mask(n - 8))};
    return {_mm256_maskload_ps(p, mask(n)), _mm256_setzero_ps()};
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  void store_first(float* p, std::size_t n) const {
    if (n >= LANES) return store(p);
    if (n < 8) return _mm256_maskstore_ps(p, mask(n), lo);
    _mm256_storeu_ps(p, lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, mask(n - 8), hi);
  }
  void store_bf16(bf16* p) const {
    const __m256i packed = _mm256_packus_epi32(narrow(lo), narrow(hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static __m256 widen(const bf16* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static __m256i narrow(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }
  static __m256i mask(std::size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32x16 abs(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline __m256 scale_by_exponent(__m256 a, __m256 biased) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(biased), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shifted));
}
inline F32x16 scale_by_exponent(F32x16 a, F32x16 biased) {
  return {scale_by_exponent(a.lo, biased.lo), scale_by_exponent(a.hi, biased.hi)};
}
using Halves = F32x16;
inline Halves halves(F32x16 a) { return a; }

#else

struct F32x16 {
  float v[LANES];

  template <class Lane>
  static F32x16 each(Lane lane) {
    F32x16 out;
    for (std::size_t i = 0; i < LANES; ++i) out.v[i] = lane(i);
    return out;
  }
  static F32x16 zero() { return broadcast(0.0f); }
  static F32x16 broadcast(float x) { return each([=](std::size_t) { return x; }); }
  static F32x16 load(const float* p) { return each([=](std::size_t i) { return p[i]; }); }
  static F32x16 load(const std::int32_t* p) { return each([=](std::size_t i) { return static_cast<float>(p[i]); }); }
  static F32x16 load_bf16(const bf16* p) { return each([=](std::size_t i) { return bf16_to_float(p[i]); }); }
  static F32x16 load_f16(const f16* p) { return each([=](std::size_t i) { return f16_to_float(p[i]); }); }
  static F32x16 load_i8(const std::int8_t* p) { return each([=](std::size_t i) { return static_cast<float>(p[i]); }); }
  // The first min(n, 16) floats, then zeros. n > 0.
  static F32x16 load_first(const float* p, std::size_t n) { return each([=](std::size_t i) { return i < n ? p[i] : 0.0f; }); }
  void store(float* p) const { std::copy(v, v + LANES, p); }
  void store_first(float* p, std::size_t n) const { std::copy(v, v + std::min(n, LANES), p); }
  void store_bf16(bf16* p) const { std::transform(v, v + LANES, p, float_to_bf16); }
};

inline F32x16 operator+(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] + b.v[i]; }); }
inline F32x16 operator-(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] - b.v[i]; }); }
inline F32x16 operator*(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] * b.v[i]; }); }
inline F32x16 operator/(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] / b.v[i]; }); }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return F32x16::each([&](std::size_t i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline F32x16 max(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline F32x16 min(F32x16 a, F32x16 b) { return F32x16::each([&](std::size_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
inline F32x16 abs(F32x16 a) { return F32x16::each([&](std::size_t i) { return std::fabs(a.v[i]); }); }
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return F32x16::each([&](std::size_t i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
inline F32x16 scale_by_exponent(F32x16 a, F32x16 biased) {
  return F32x16::each([&](std::size_t i) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(a.v[i]) + (std::bit_cast<std::uint32_t>(biased.v[i]) << 23));
  });
}

#endif

// Sums and maxima over the lanes, in the order 8 + 8, 4 + 4, 2 + 2, 1 + 1.
#if defined(RAMIFY_LANES_512) || defined(RAMIFY_LANES_256)
template <class Combine128, class Combine256>
inline float reduce(F32x16 a, Combine256 wide, Combine128 narrow) {
  const Halves parts = halves(a);
  const __m256 eight = wide(parts.lo, parts.hi);
  const __m128 four = narrow(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = narrow(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(narrow(two, _mm_shuffle_ps(two, two, 1)));
}
inline float reduce_add(F32x16 a) {
  return reduce(
      a, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); }, [](__m128 x, __m128 y) { return _mm_add_ps(x, y); });
}
inline float reduce_max(F32x16 a) {
  return reduce(
      a, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }, [](__m128 x, __m128 y) { return _mm_max_ps(x, y); });
}
#else
template <class Combine>
inline float reduce(F32x16 a, Combine combine) {
  for (std::size_t half = LANES / 2; half != 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) a.v[i] = combine(a.v[i], a.v[i + half]);
  }
  return a.v[0];
}
inline float reduce_add(F32x16 a) {
  return reduce(a, [](float x, float y) { return x + y; });
}
inline float reduce_max(F32x16 a) {
  return reduce(a, [](float x, float y) { return x > y ? x : y; });
}
#endif

// e^x within 2 units in the last place; 0 below -87.3 (so e^-inf is 0), about 2.4e38 from 88.3 up, NaN for NaN.
inline F32x16 exp(F32x16 x) {
  const F32x16 lowest = F32x16::broadcast(-87.3f);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits. The order of min keeps a NaN.
  const F32x16 shifter = F32x16::broadcast(12582912.0f);
  const F32x16 inside = min(F32x16::broadcast(88.3f), max(lowest, x));
  const F32x16 biased = fma(inside, F32x16::broadcast(1.44269504f), shifter);
  const F32x16 n = biased - shifter;
  F32x16 r = fma(n, F32x16::broadcast(-0.693359375f), inside);
  r = fma(n, F32x16::broadcast(2.12194440e-4f), r);
  F32x16 p = F32x16::broadcast(1.9875691500e-4f);
  p = fma(p, r, F32x16::broadcast(1.3981999507e-3f));
  p = fma(p, r, F32x16::broadcast(8.3334519073e-3f));
  p = fma(p, r, F32x16::broadcast(4.1665795894e-2f));
  p = fma(p, r, F32x16::broadcast(1.6666665459e-1f));
  p = fma(p, r, F32x16::broadcast(5.0000001201e-1f));
  p = fma(p * r, r, r) + F32x16::broadcast(1.0f);
  return where_less(x, lowest, F32x16::zero(), scale_by_exponent(p, biased));
}

}  // namespace ramify::RAMIFY_ISA
