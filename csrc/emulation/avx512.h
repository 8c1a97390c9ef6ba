// The AVX-512 intrinsics that the operators use, written for processors that have AVX2: with EMULATE_AVX512 this header
// comes before every source of the AVX-512 variants, so that their code can be tested where it could not run. Names in
// the variant's own namespace hide those of the compiler. Needs optimisation: without it the compiler's are macros.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace ramify::RAMIFY_ISA {
namespace emulated {

struct FloatHalves {
  __m256 lo, hi;
};
struct IntegerHalves {
  __m256i lo, hi;
};

inline FloatHalves split(__m512 a) { return std::bit_cast<FloatHalves>(a); }
inline IntegerHalves split(__m512i a) { return std::bit_cast<IntegerHalves>(a); }
inline __m512 together(__m256 lo, __m256 hi) { return std::bit_cast<__m512>(FloatHalves{lo, hi}); }
inline __m512i together(__m256i lo, __m256i hi) { return std::bit_cast<__m512i>(IntegerHalves{lo, hi}); }

// An operation of AVX2 on both halves.
template <class Operation, class... Wide>
inline auto each_half(Operation operation, Wide... wide) {
  return together(operation(split(wide).lo...), operation(split(wide).hi...));
}

using Floats = std::array<float, 16>;
using Integers = std::array<std::int32_t, 16>;
using Bytes = std::array<std::uint8_t, 64>;
using Words = std::array<std::uint16_t, 32>;

// lane(i) for sixteen lanes.
template <class Result, class Lane>
inline Result each(Lane lane) {
  Result out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = lane(i);
  return out;
}

inline bool has(__mmask32 mask, std::size_t lane) { return (mask >> lane & 1) != 0; }

// The lanes of `yes` that the mask names, the others of `no`.
template <class Lanes, class Register>
inline Register blend(__mmask32 mask, Register no, Register yes) {
  const auto x = std::bit_cast<Lanes>(no), y = std::bit_cast<Lanes>(yes);
  return std::bit_cast<Register>(each<Lanes>([&](std::size_t i) { return has(mask, i) ? y[i] : x[i]; }));
}

// The lowest bits of every lane.
template <class Result, class Narrow>
inline Result narrowed(__m512i a) {
  const auto lanes = std::bit_cast<Integers>(a);
  return std::bit_cast<Result>(each<std::array<Narrow, 16>>([&](std::size_t i) { return static_cast<Narrow>(lanes[i]); }));
}

// Subnormal numbers are zero, for the instructions on bfloat16.
inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
inline float widened(std::uint16_t x) { return flushed(std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16)); }

}  // namespace emulated

inline __m512 _mm512_setzero_ps() { return __m512{}; }
inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512 _mm512_set1_ps(float x) { return emulated::together(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
inline __m512i _mm512_set1_epi32(int x) { return emulated::together(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
inline __m512i _mm512_set1_epi8(char x) { return emulated::together(_mm256_set1_epi8(x), _mm256_set1_epi8(x)); }

inline __m512 _mm512_castsi512_ps(__m512i a) { return std::bit_cast<__m512>(a); }
inline __m512i _mm512_castps_si512(__m512 a) { return std::bit_cast<__m512i>(a); }
inline __m256 _mm512_castps512_ps256(__m512 a) { return emulated::split(a).lo; }
inline __m256 _mm512_extractf32x8_ps(__m512 a, int half) { return half == 0 ? emulated::split(a).lo : emulated::split(a).hi; }

inline __m512 _mm512_loadu_ps(const void* p) {
  const auto* q = static_cast<const float*>(p);
  return emulated::together(_mm256_loadu_ps(q), _mm256_loadu_ps(q + 8));
}
inline __m512i _mm512_loadu_si512(const void* p) {
  const auto* q = static_cast<const __m256i*>(p);
  return emulated::together(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
}
inline void _mm512_storeu_si512(void* p, __m512i a) {
  auto* q = static_cast<__m256i*>(p);
  _mm256_storeu_si256(q, emulated::split(a).lo);
  _mm256_storeu_si256(q + 1, emulated::split(a).hi);
}
inline void _mm512_storeu_ps(void* p, __m512 a) {
  auto* q = static_cast<float*>(p);
  _mm256_storeu_ps(q, emulated::split(a).lo);
  _mm256_storeu_ps(q + 8, emulated::split(a).hi);
}
// Only the lanes of the mask are read or written.
inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  const auto* q = static_cast<const float*>(p);
  const auto lane = [=](std::size_t i) { return emulated::has(mask, i) ? q[i] : 0.0f; };
  return std::bit_cast<__m512>(emulated::each<emulated::Floats>(lane));
}
inline void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 a) {
  const auto lanes = std::bit_cast<emulated::Floats>(a);
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    if (emulated::has(mask, i)) static_cast<float*>(p)[i] = lanes[i];
  }
}

inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
inline __m512 _mm512_div_ps(__m512 a, __m512 b) { return a / b; }
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return emulated::each_half([](__m256 x, __m256 y, __m256 z) { return _mm256_fmadd_ps(x, y, z); }, a, b, c);
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return emulated::each_half([](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }, a, b);
}
inline __m512 _mm512_min_ps(__m512 a, __m512 b) {
  return emulated::each_half([](__m256 x, __m256 y) { return _mm256_min_ps(x, y); }, a, b);
}
inline __m512 _mm512_abs_ps(__m512 a) {
  return emulated::each_half([](__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }, a);
}

inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  const auto x = std::bit_cast<emulated::Floats>(a), y = std::bit_cast<emulated::Floats>(b);
  unsigned mask = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    switch (predicate) {
      case _CMP_LT_OQ: mask |= static_cast<unsigned>(x[i] < y[i]) << i; break;
      case _CMP_UNORD_Q: mask |= static_cast<unsigned>(std::isnan(x[i]) || std::isnan(y[i])) << i; break;
      default: std::abort();  // not emulated
    }
  }
  return static_cast<__mmask16>(mask);
}
inline __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 no, __m512 yes) {
  return emulated::blend<emulated::Floats>(mask, no, yes);
}
inline __m512i _mm512_mask_blend_epi16(__mmask32 mask, __m512i no, __m512i yes) {
  return emulated::blend<emulated::Words>(mask, no, yes);
}
inline __m512i _mm512_rol_epi32(__m512i a, int count) {
  const auto lanes = std::bit_cast<emulated::Integers>(a);
  const auto rotated = [&](std::size_t i) { return static_cast<std::int32_t>(std::rotl(static_cast<std::uint32_t>(lanes[i]), count)); };
  return std::bit_cast<__m512i>(emulated::each<emulated::Integers>(rotated));
}
inline __m512i _mm512_mask_mov_epi32(__m512i no, __mmask16 mask, __m512i yes) {
  return emulated::blend<emulated::Integers>(mask, no, yes);
}

inline __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
inline __m512i _mm512_andnot_si512(__m512i a, __m512i b) { return ~a & b; }
inline __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
inline __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return emulated::each_half([](__m256i x, __m256i y) { return _mm256_add_epi32(x, y); }, a, b);
}
inline __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
  return emulated::each_half([](__m256i x, __m256i y) { return _mm256_mullo_epi32(x, y); }, a, b);
}
inline __m512i _mm512_max_epi32(__m512i a, __m512i b) {
  return emulated::each_half([](__m256i x, __m256i y) { return _mm256_max_epi32(x, y); }, a, b);
}
inline __m512i _mm512_slli_epi32(__m512i a, unsigned bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_slli_epi32(x, static_cast<int>(bits)); }, a);
}
inline __m512i _mm512_srli_epi32(__m512i a, unsigned bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_srli_epi32(x, static_cast<int>(bits)); }, a);
}
inline __m512i _mm512_srli_epi16(__m512i a, unsigned bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_srli_epi16(x, static_cast<int>(bits)); }, a);
}
inline __m512i _mm512_srai_epi32(__m512i a, unsigned bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_srai_epi32(x, static_cast<int>(bits)); }, a);
}
inline __m512i _mm512_srl_epi32(__m512i a, __m128i bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_srl_epi32(x, bits); }, a);
}
inline __m512i _mm512_srl_epi16(__m512i a, __m128i bits) {
  return emulated::each_half([=](__m256i x) { return _mm256_srl_epi16(x, bits); }, a);
}
inline int _mm512_reduce_add_epi32(__m512i a) {
  std::uint32_t sum = 0;
  for (const std::int32_t lane : std::bit_cast<emulated::Integers>(a)) sum += static_cast<std::uint32_t>(lane);
  return static_cast<int>(sum);
}
inline int _mm512_reduce_max_epi32(__m512i a) {
  int largest = INT32_MIN;
  for (const std::int32_t lane : std::bit_cast<emulated::Integers>(a)) largest = lane > largest ? lane : largest;
  return largest;
}

inline __m512 _mm512_cvtepi32_ps(__m512i a) {
  return emulated::each_half([](__m256i x) { return _mm256_cvtepi32_ps(x); }, a);
}
inline __m512i _mm512_cvtps_epi32(__m512 a) {
  return emulated::each_half([](__m256 x) { return _mm256_cvtps_epi32(x); }, a);
}
inline __m512 _mm512_cvtph_ps(__m256i a) {
  return emulated::together(_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
inline __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return emulated::together(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                            _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)));
}
inline __m512i _mm512_cvtepi8_epi32(__m128i a) {
  return emulated::together(_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)));
}
inline __m256i _mm512_cvtepi32_epi16(__m512i a) { return emulated::narrowed<__m256i, std::int16_t>(a); }
inline __m128i _mm512_cvtepi32_epi8(__m512i a) { return emulated::narrowed<__m128i, std::int8_t>(a); }

// sum + two products of 16-bit integers, without saturation.
inline __m512i _mm512_dpwssd_epi32(__m512i sum, __m512i a, __m512i b) {
  const auto dot = [](__m256i s, __m256i x, __m256i y) { return _mm256_add_epi32(s, _mm256_madd_epi16(x, y)); };
  return emulated::each_half(dot, sum, a, b);
}

// sum + four products of unsigned with signed bytes, without saturation.
inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const auto sums = std::bit_cast<emulated::Integers>(sum);
  const auto x = std::bit_cast<emulated::Bytes>(a), y = std::bit_cast<emulated::Bytes>(b);
  return std::bit_cast<__m512i>(emulated::each<emulated::Integers>([&](std::size_t i) {
    int dot = 0;
    for (std::size_t j = 4 * i; j < 4 * i + 4; ++j) dot += int{x[j]} * static_cast<std::int8_t>(y[j]);
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(sums[i]) + static_cast<std::uint32_t>(dot));
  }));
}

// The odd elements' products join the sum first; each product and sum is rounded once, and subnormal numbers are zero.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const auto sums = std::bit_cast<emulated::Floats>(sum);
  const auto x = std::bit_cast<emulated::Words>(a), y = std::bit_cast<emulated::Words>(b);
  return std::bit_cast<__m512>(emulated::each<emulated::Floats>([&](std::size_t i) {
    const float odd = std::fma(emulated::widened(x[2 * i + 1]), emulated::widened(y[2 * i + 1]), emulated::flushed(sums[i]));
    const float both = std::fma(emulated::widened(x[2 * i]), emulated::widened(y[2 * i]), emulated::flushed(odd));
    return emulated::flushed(both);
  }));
}

}  // namespace ramify::RAMIFY_ISA
