// Exact integer sums of one chunk of inputs, for a tile of rows times 16 columns (or twice 16).
#pragma once

#include "simd.h"

namespace ramify::RAMIFY_ISA {

// Where a chunk's codes are, of weights and of activations.
struct ChunkCodes {
  const std::uint8_t* weights;   // of the first block of columns
  std::size_t block_bytes;       // from there to the next block
  const std::int8_t* rows;       // [chunk / 4, R, 4]
  const std::int32_t* starts;    // [R]
};

constexpr std::size_t STEP_BYTES = 64;    // four inputs of 16 columns
constexpr std::size_t HALVES_STEPS = 4;   // 64-byte steps that hold 32 inputs of 4 bits

inline std::int32_t load_four(const std::int8_t* codes) {
  std::int32_t four;
  std::memcpy(&four, codes, 4);
  return four;
}

#if defined(RAMIFY_LANES_512)

constexpr std::size_t TILE_ROWS = 12;    // 24 sums, two weights, one activation: 27 of 32 registers
constexpr std::size_t TILE_BLOCKS = 2;

struct I32x16 {
  __m512i v;

  F32x16 to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

inline __m512i load_step(const std::uint8_t* weights) { return _mm512_loadu_si512(weights); }

template <std::size_t R>
inline void add_step(I32x16 (&sums)[R][TILE_BLOCKS], __m512i first, __m512i second, const std::int8_t* rows) {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) {
    const __m512i four = _mm512_set1_epi32(load_four(rows + 4 * r));
    sums[r][0].v = _mm512_dpbusd_epi32(sums[r][0].v, first, four);
    sums[r][1].v = _mm512_dpbusd_epi32(sums[r][1].v, second, four);
  }
}

template <std::size_t R>
inline void start(I32x16 (&sums)[R][TILE_BLOCKS], const std::int32_t* starts) {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) sums[r][0].v = sums[r][1].v = _mm512_set1_epi32(starts[r]);
}

template <std::size_t R>
inline void sum_eight_bits(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes, std::size_t chunk) {
  start(sums, codes.starts);
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    const std::uint8_t* weights = codes.weights + step * STEP_BYTES;
    add_step(sums, load_step(weights), load_step(weights + codes.block_bytes), codes.rows + step * 4 * R);
  }
}

// Low halves, high halves, or both of `steps` steps.
template <bool LOW, bool HIGH, std::size_t R>
inline void add_halves(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (std::size_t step = 0; step < HALVES_STEPS; ++step) {
    const std::uint8_t* weights = codes.weights + step * STEP_BYTES;
    const __m512i first = load_step(weights), second = load_step(weights + codes.block_bytes);
    const std::int8_t* rows = codes.rows + step * 4 * R;
    if constexpr (LOW) add_step(sums, _mm512_and_si512(first, low), _mm512_and_si512(second, low), rows);
    if constexpr (HIGH) {
      const __m512i high_first = _mm512_and_si512(_mm512_srli_epi16(first, 4), low);
      const __m512i high_second = _mm512_and_si512(_mm512_srli_epi16(second, 4), low);
      add_step(sums, high_first, high_second, rows + (LOW ? 16 * R : 0));
    }
  }
}

template <std::size_t R>
inline void sum_four_bits(I32x16 (&sums)[R][TILE_BLOCKS], ChunkCodes codes, std::size_t chunk, bool high) {
  start(sums, codes.starts);
  if (chunk == 16) return high ? add_halves<false, true>(sums, codes) : add_halves<true, false>(sums, codes);
  for (std::size_t i = 0; i < chunk; i += 32) {
    add_halves<true, true>(sums, codes);
    codes.weights += HALVES_STEPS * STEP_BYTES;
    codes.rows += 32 * R;
  }
}

#elif defined(RAMIFY_LANES_256)

constexpr std::size_t TILE_ROWS = 4;    // 8 sums, two weights and their magnitudes, one activation, one product
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  __m256i lo, hi;

  F32x16 to_float() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

inline __m256i load_step(const std::uint8_t* weights) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
}

// Two neighbouring products of bytes are at most 2 * 128 * 127 and fit 16 bits.
inline __m256i add_products(__m256i sum, __m256i magnitudes, __m256i signs, __m256i four) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(four, signs));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <std::size_t R>
inline void sum_eight_bits(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes, std::size_t chunk) {
  const __m256i zero = _mm256_set1_epi8(-128);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) sums[r][0].lo = sums[r][0].hi = _mm256_setzero_si256();
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    const __m256i lo = _mm256_xor_si256(load_step(codes.weights + step * STEP_BYTES), zero);
    const __m256i hi = _mm256_xor_si256(load_step(codes.weights + step * STEP_BYTES + 32), zero);
    const __m256i lo_magnitudes = _mm256_abs_epi8(lo), hi_magnitudes = _mm256_abs_epi8(hi);
#pragma GCC unroll 4
    for (std::size_t r = 0; r < R; ++r) {
      const __m256i four = _mm256_set1_epi32(load_four(codes.rows + (step * R + r) * 4));
      sums[r][0].lo = add_products(sums[r][0].lo, lo_magnitudes, lo, four);
      sums[r][0].hi = add_products(sums[r][0].hi, hi_magnitudes, hi, four);
    }
  }
}

// 16-bit sums hold 32 inputs: 16 products of at most 15 * 127 each.
template <std::size_t R>
inline void add_sixteen_bits(I32x16 (&sums)[R][TILE_BLOCKS], __m256i lo, __m256i hi, const std::int8_t* rows) {
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) {
    const __m256i four = _mm256_set1_epi32(load_four(rows + 4 * r));
    sums[r][0].lo = _mm256_add_epi16(sums[r][0].lo, _mm256_maddubs_epi16(lo, four));
    sums[r][0].hi = _mm256_add_epi16(sums[r][0].hi, _mm256_maddubs_epi16(hi, four));
  }
}

// 16-bit sums of the low halves, the high halves, or both of 32 inputs.
template <bool LOW, bool HIGH, std::size_t R>
inline void sum_halves(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes) {
  const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) sums[r][0].lo = sums[r][0].hi = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (std::size_t step = 0; step < HALVES_STEPS; ++step) {
    const __m256i lo = load_step(codes.weights + step * STEP_BYTES);
    const __m256i hi = load_step(codes.weights + step * STEP_BYTES + 32);
    const std::int8_t* rows = codes.rows + step * 4 * R;
    if constexpr (LOW) add_sixteen_bits(sums, _mm256_and_si256(lo, low), _mm256_and_si256(hi, low), rows);
    if constexpr (HIGH) {
      const __m256i high_lo = _mm256_and_si256(_mm256_srli_epi16(lo, 4), low);
      const __m256i high_hi = _mm256_and_si256(_mm256_srli_epi16(hi, 4), low);
      add_sixteen_bits(sums, high_lo, high_hi, rows + (LOW ? 16 * R : 0));
    }
  }
}

// sums = before + the 32-bit sums of the 16-bit ones in `sums`.
template <std::size_t R, class Before>
inline void widen(I32x16 (&sums)[R][TILE_BLOCKS], Before before) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) {
    const I32x16 addend = before(r);
    sums[r][0].lo = _mm256_add_epi32(addend.lo, _mm256_madd_epi16(sums[r][0].lo, ones));
    sums[r][0].hi = _mm256_add_epi32(addend.hi, _mm256_madd_epi16(sums[r][0].hi, ones));
  }
}

template <std::size_t R>
inline void sum_four_bits(I32x16 (&sums)[R][TILE_BLOCKS], ChunkCodes codes, std::size_t chunk, bool high) {
  const auto starts = [&](std::size_t r) {
    const __m256i value = _mm256_set1_epi32(codes.starts[r]);
    return I32x16{value, value};
  };
  if (chunk == 16 && high) {
    sum_halves<false, true>(sums, codes);
  } else if (chunk == 16) {
    sum_halves<true, false>(sums, codes);
  } else {
    sum_halves<true, true>(sums, codes);
  }
  widen(sums, starts);
  for (std::size_t i = 32; i < chunk; i += 32) {
    codes.weights += HALVES_STEPS * STEP_BYTES;
    codes.rows += 32 * R;
    I32x16 more[R][TILE_BLOCKS];
    sum_halves<true, true>(more, codes);
    widen(more, [&](std::size_t r) { return sums[r][0]; });
#pragma GCC unroll 4
    for (std::size_t r = 0; r < R; ++r) sums[r][0] = more[r][0];
  }
}

#else

constexpr std::size_t TILE_ROWS = 4;
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  std::int32_t v[LANES];

  F32x16 to_float() const { return F32x16::load(v); }
};

// One step of four inputs; a stored code becomes `code(byte)`.
template <std::size_t R, class Code>
inline void add_step(I32x16 (&sums)[R][TILE_BLOCKS], const std::uint8_t* weights, const std::int8_t* rows, Code code) {
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t i = 0; i < STEP_BYTES; ++i) sums[r][0].v[i / 4] += code(weights[i]) * rows[4 * r + i % 4];
  }
}

template <std::size_t R>
inline void start(I32x16 (&sums)[R][TILE_BLOCKS], const std::int32_t* starts) {
  for (std::size_t r = 0; r < R; ++r) std::fill_n(sums[r][0].v, LANES, starts[r]);
}

template <std::size_t R>
inline void sum_eight_bits(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes, std::size_t chunk) {
  start(sums, codes.starts);
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    add_step(sums, codes.weights + step * STEP_BYTES, codes.rows + step * 4 * R, [](int byte) { return byte; });
  }
}

template <std::size_t R>
inline void sum_four_bits(I32x16 (&sums)[R][TILE_BLOCKS], const ChunkCodes& codes, std::size_t chunk, bool high) {
  start(sums, codes.starts);
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    const std::size_t half = step + (high ? HALVES_STEPS : 0);
    const std::uint8_t* weights = codes.weights + (half / 8 * HALVES_STEPS + half % HALVES_STEPS) * STEP_BYTES;
    const int shift = half % 8 < HALVES_STEPS ? 0 : 4;
    add_step(sums, weights, codes.rows + step * 4 * R, [shift](int byte) { return byte >> shift & 15; });
  }
}

#endif

}  // namespace ramify::RAMIFY_ISA
