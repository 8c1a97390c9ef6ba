// By AVX2: products of bytes are added in pairs to 16 bits, where 32 inputs of 4 bits fit, and two of 8 bits.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 4;  // 8 sums, two weights and their magnitudes, an activation, a product
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  __m256i lo, hi;

  F32x16 to_float() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

template <std::size_t R>
using Sums = I32x16[R][TILE_BLOCKS];

RAMIFY_INLINE inline __m256i load_step(const std::uint8_t* weights) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
}

template <std::size_t R>
RAMIFY_INLINE inline void start_at_zero(Sums<R>& sums) {
  unrolled<R>([&](auto r) RAMIFY_INLINE { sums[r][0].lo = sums[r][0].hi = _mm256_setzero_si256(); });
}

// Keeps compilers from regrouping a long sum, which would need all of its products at once.
RAMIFY_INLINE inline void sum_so_far([[maybe_unused]] __m256i& sum) {
#if defined(__GNUC__)
  asm("" : "+x"(sum));
#endif
}

// Two neighbouring products are at most 2 * 128 * 127, which fits 16 bits.
RAMIFY_INLINE inline __m256i add_products(__m256i sum, __m256i magnitudes, __m256i signs, __m256i four) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(four, signs));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <std::size_t R>
RAMIFY_INLINE inline void sum_eight_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  const __m256i zero = _mm256_set1_epi8(-128);
  start_at_zero<R>(sums);
  const std::uint8_t* weights = codes.weights;
  const std::int8_t* rows = codes.rows;
  const std::uint8_t* const end = weights + chunk * LANES;
  do {
    prefetch_weights(weights);
    const __m256i lo = _mm256_xor_si256(load_step(weights), zero);
    const __m256i hi = _mm256_xor_si256(load_step(weights + 32), zero);
    const __m256i lo_magnitudes = _mm256_abs_epi8(lo), hi_magnitudes = _mm256_abs_epi8(hi);
    unrolled<R>([&](auto r) RAMIFY_INLINE {
      const __m256i four = _mm256_set1_epi32(load_four(rows + 4 * r));
      sums[r][0].lo = add_products(sums[r][0].lo, lo_magnitudes, lo, four);
      sums[r][0].hi = add_products(sums[r][0].hi, hi_magnitudes, hi, four);
      sum_so_far(sums[r][0].lo);
      sum_so_far(sums[r][0].hi);
    });
    weights += STEP_BYTES;
    rows += 4 * R;
  } while (weights != end);
}

// To 16-bit sums: 32 inputs are 16 products of at most 15 * 127 in each.
template <std::size_t R>
RAMIFY_INLINE inline void add_step(Sums<R>& sums, __m256i lo, __m256i hi, const std::int8_t* rows) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const __m256i four = _mm256_set1_epi32(load_four(rows + 4 * r));
    sums[r][0].lo = _mm256_add_epi16(sums[r][0].lo, _mm256_maddubs_epi16(lo, four));
    sums[r][0].hi = _mm256_add_epi16(sums[r][0].hi, _mm256_maddubs_epi16(hi, four));
    sum_so_far(sums[r][0].lo);
    sum_so_far(sums[r][0].hi);
  });
}

// 32 inputs of 4 bits, in 16-bit sums.
template <std::size_t R>
RAMIFY_INLINE inline void sum_halves(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  const __m256i low = _mm256_set1_epi8(15);
  start_at_zero<R>(sums);
  unrolled<HALVES_STEPS>([&](auto step) RAMIFY_INLINE {
    prefetch_weights(weights + step * STEP_BYTES);
    const __m256i lo = load_step(weights + step * STEP_BYTES);
    const __m256i hi = load_step(weights + step * STEP_BYTES + 32);
    add_step<R>(sums, _mm256_and_si256(lo, low), _mm256_and_si256(hi, low), rows + step * 4 * R);
    const __m256i high_lo = _mm256_and_si256(_mm256_srli_epi16(lo, 4), low);
    const __m256i high_hi = _mm256_and_si256(_mm256_srli_epi16(hi, 4), low);
    add_step<R>(sums, high_lo, high_hi, rows + (step + HALVES_STEPS) * 4 * R);
  });
}

// 16-bit sums to 32-bit ones, added to `addend`.
RAMIFY_INLINE inline I32x16 widened(const I32x16& sums, const I32x16& addend) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(addend.lo, _mm256_madd_epi16(sums.lo, ones)),
          _mm256_add_epi32(addend.hi, _mm256_madd_epi16(sums.hi, ones))};
}

template <std::size_t R>
RAMIFY_INLINE inline void widen(Sums<R>& sums, const std::int32_t* starts) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const __m256i start = _mm256_set1_epi32(starts[r]);
    sums[r][0] = widened(sums[r][0], {start, start});
  });
}

template <std::size_t R>
RAMIFY_INLINE inline void sum_four_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  sum_halves<R>(sums, codes.weights, codes.rows);
  widen<R>(sums, codes.starts);
  for (std::size_t i = HALVES_INPUTS; i < chunk; i += HALVES_INPUTS) {
    Sums<R> more;
    sum_halves<R>(more, codes.weights + i / 2 * LANES, codes.rows + i * R);
    unrolled<R>([&](auto r) RAMIFY_INLINE { sums[r][0] = widened(more[r][0], sums[r][0]); });
  }
}

// The 16 of 32 inputs of 4 bits that are in the low halves, or in the high ones.
template <std::size_t R>
RAMIFY_INLINE inline void sum_half(Sums<R>& sums, const ChunkCodes& codes, bool high) {
  const __m128i shift = _mm_cvtsi32_si128(high ? 4 : 0);
  const __m256i low = _mm256_set1_epi8(15);
  start_at_zero<R>(sums);
  for (std::size_t step = 0; step < HALVES_STEPS; ++step) {
    const __m256i lo = _mm256_srl_epi16(load_step(codes.weights + step * STEP_BYTES), shift);
    const __m256i hi = _mm256_srl_epi16(load_step(codes.weights + step * STEP_BYTES + 32), shift);
    add_step<R>(sums, _mm256_and_si256(lo, low), _mm256_and_si256(hi, low), codes.rows + step * 4 * R);
  }
  widen<R>(sums, codes.starts);
}

}  // namespace ramify::RAMIFY_ISA
