// By AVX2: with weights of 4 bits, products of bytes are added to 16 bits, where 32 inputs fit; those of 8 bits are
// multiplied as 16-bit integers.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 6;  // 12 sums, two weights, an activation, a product: all 16 registers
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  __m256i lo, hi;

  static I32x16 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I32x16 load(const std::int32_t* p) {
    const auto* const from = reinterpret_cast<const __m256i*>(p);
    return {_mm256_load_si256(from), _mm256_load_si256(from + 1)};
  }
  void store(std::int32_t* p) const {
    auto* const to = reinterpret_cast<__m256i*>(p);
    _mm256_store_si256(to, lo);
    _mm256_store_si256(to + 1, hi);
  }
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

// Two inputs of 16 columns, as 16-bit integers.
template <std::size_t R>
RAMIFY_INLINE inline void add_words(Sums<R>& sums, __m256i lo, __m256i hi, const std::int8_t* rows) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const __m256i two = _mm256_set1_epi32(load_four(rows + 8 * r));
    sums[r][0].lo = _mm256_add_epi32(sums[r][0].lo, _mm256_madd_epi16(lo, two));
    sums[r][0].hi = _mm256_add_epi32(sums[r][0].hi, _mm256_madd_epi16(hi, two));
    sum_so_far(sums[r][0].lo);
    sum_so_far(sums[r][0].hi);
  });
}

// Codes stay as they are stored, from 0 to 255, which the start corrects. A row holds the even inputs of a step and then
// the odd ones, as 16-bit integers.
template <std::size_t R, std::size_t INPUTS>
RAMIFY_INLINE inline void add_bytes(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  const __m256i even = _mm256_set1_epi16(255);
  unrolled<INPUTS / 4>([&](auto step) RAMIFY_INLINE {
    prefetch_weights(weights + step * STEP_BYTES);
    const __m256i lo = load_step(weights + step * STEP_BYTES), hi = load_step(weights + step * STEP_BYTES + 32);
    const std::int8_t* inputs = rows + step * 8 * R;
    add_words<R>(sums, _mm256_and_si256(lo, even), _mm256_and_si256(hi, even), inputs);
    add_words<R>(sums, _mm256_srli_epi16(lo, 8), _mm256_srli_epi16(hi, 8), inputs + 4);
  });
}

template <std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_eight_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  unrolled<R>([&](auto r) RAMIFY_INLINE { sums[r][0].lo = sums[r][0].hi = _mm256_set1_epi32(codes.starts[r]); });
  if constexpr (CHUNK != 0) {
    add_bytes<R, CHUNK>(sums, codes.weights, codes.rows);
  } else {
    for (std::size_t i = 0; i < chunk; i += 32) add_bytes<R, 32>(sums, codes.weights + i * LANES, codes.rows + 2 * i * R);
  }
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

template <std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_four_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  sum_halves<R>(sums, codes.weights, codes.rows);
  widen<R>(sums, codes.starts);
  if constexpr (CHUNK == HALVES_INPUTS) return;  // and the sums stay in registers
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

// What follows is for integer scales: 16-bit sums begin at what corrects their own lanes, and one instruction widens and
// scales them. Of 4 bits each such lane sums another 32 inputs, whose scales differ; 32 products of at most 8 * 127
// fit once the sum is whole.

// The same place, unknown to compilers: so they load a step again rather than hold it over others.
RAMIFY_INLINE inline const std::uint8_t* again(const std::uint8_t* weights) {
#if defined(__GNUC__)
  asm("" : "+r"(weights));
#endif
  return weights;
}

template <std::size_t R>
RAMIFY_INLINE inline void add_low_halves(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  const __m256i low = _mm256_set1_epi8(15);
  unrolled<PAIR_STEPS>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* at = weights + step * STEP_BYTES;
    prefetch_weights(at);
    add_step<R>(sums, _mm256_and_si256(load_step(at), low), _mm256_and_si256(load_step(at + 32), low), rows + step * 4 * R);
  });
}

template <std::size_t R>
RAMIFY_INLINE inline void add_high_halves(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  const __m256i low = _mm256_set1_epi8(15);
  unrolled<PAIR_STEPS>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* at = weights + step * STEP_BYTES;
    const __m256i lo = _mm256_and_si256(_mm256_srli_epi16(load_step(at), 4), low);
    const __m256i hi = _mm256_and_si256(_mm256_srli_epi16(load_step(at + 32), 4), low);
    add_step<R>(sums, lo, hi, rows + step * 4 * R);
  });
}

// The parts of the fourth step's codes that are beside those of the others.
RAMIFY_INLINE inline __m256i fourth_step(const std::uint8_t* weights) {
  const __m256i beside = _mm256_set1_epi8(static_cast<char>(0xc0));
  const __m256i first = _mm256_and_si256(load_step(weights), beside);
  const __m256i second = _mm256_and_si256(load_step(weights + STEP_BYTES), beside);
  const __m256i third = _mm256_and_si256(load_step(weights + 2 * STEP_BYTES), beside);
  const __m256i lower = _mm256_or_si256(_mm256_srli_epi16(second, 4), _mm256_srli_epi16(third, 6));
  return _mm256_or_si256(_mm256_srli_epi16(first, 2), lower);
}

// 16 inputs of 6 bits, [3, 16, 4], to bytes, [4, 16, 4].
inline void unpack_six_bits(const std::uint8_t* from, std::uint8_t* to) {
  const __m256i low = _mm256_set1_epi8(63);
  for (std::size_t half = 0; half < STEP_BYTES; half += 32) {
    auto* const bytes = reinterpret_cast<__m256i*>(to + half);
    unrolled<3>([&](auto step) RAMIFY_INLINE {
      _mm256_storeu_si256(bytes + 2 * step, _mm256_and_si256(load_step(from + half + step * STEP_BYTES), low));
    });
    _mm256_storeu_si256(bytes + 6, fourth_step(from + half));
  }
}

// 16 inputs of 6 bits, unpacked or not: a 16-bit sum holds 8 products of at most 31 * 127, once it is whole.
template <std::size_t R>
RAMIFY_INLINE inline void add_unpacked(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  unrolled<4>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* at = weights + step * STEP_BYTES;
    add_step<R>(sums, load_step(at), load_step(at + 32), rows + step * 4 * R);
  });
}

template <std::size_t R>
RAMIFY_INLINE inline void add_six_bits(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows) {
  const __m256i low = _mm256_set1_epi8(63);
  unrolled<3>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* at = weights + step * STEP_BYTES;
    prefetch_weights(at);
    add_step<R>(sums, _mm256_and_si256(load_step(at), low), _mm256_and_si256(load_step(at + 32), low), rows + step * 4 * R);
  });
  weights = again(weights);
  add_step<R>(sums, fourth_step(weights), fourth_step(weights + 32), rows + 12 * R);
}

using Scales = I32x16;  // 16-bit integers, as the sums' lanes need them

template <std::size_t BITS>
RAMIFY_INLINE inline Scales load_scales(const std::int8_t* scales) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  const __m128i second = BITS == 4 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + LANES)) : first;
  return {_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second)), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(first, second))};
}

// total + sums * scales.
template <std::size_t BITS>
RAMIFY_INLINE inline I32x16 scaled(const I32x16& total, const I32x16& sums, const Scales& scales) {
  return {_mm256_add_epi32(total.lo, _mm256_madd_epi16(sums.lo, scales.lo)),
          _mm256_add_epi32(total.hi, _mm256_madd_epi16(sums.hi, scales.hi))};
}

template <std::size_t BITS, std::size_t R>
RAMIFY_INLINE inline void sum_part(Sums<R>& sums, const ChunkCodes& codes, std::size_t part) {
  const std::uint8_t* const weights = codes.weights + part * inputs_scaled_together(BITS) * LANES * BITS / 8;
  unrolled<R>([&](auto r) RAMIFY_INLINE { sums[r][0].lo = sums[r][0].hi = _mm256_set1_epi32(codes.starts[r]); });
  if constexpr (BITS == 4) {
    add_low_halves<R>(sums, weights, codes.rows);
    add_high_halves<R>(sums, again(weights), codes.rows + 4 * PAIR_STEPS * R);
  } else if constexpr (BITS == 6) {
    add_six_bits<R>(sums, weights, codes.rows);
  } else {
    add_unpacked<R>(sums, weights, codes.rows);
  }
}

}  // namespace ramify::RAMIFY_ISA
