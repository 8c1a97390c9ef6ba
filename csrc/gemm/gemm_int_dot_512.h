// By AVX-512 VNNI: four products of a stored code (unsigned) and an activation (signed) a lane and instruction.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 12;  // 24 sums, two weights as stored and as codes, an activation, a mask: 30 registers
constexpr std::size_t TILE_BLOCKS = 2;

struct I32x16 {
  __m512i v;

  F32x16 to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

template <std::size_t R>
using Sums = I32x16[R][TILE_BLOCKS];

RAMIFY_INLINE inline __m512i load_step(const std::uint8_t* weights) {
  prefetch_weights(weights);
  return _mm512_loadu_si512(weights);
}

template <std::size_t R>
RAMIFY_INLINE inline void add_step(Sums<R>& sums, __m512i first, __m512i second, const std::int8_t* rows) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const __m512i four = _mm512_set1_epi32(load_four(rows + 4 * r));
    sums[r][0].v = _mm512_dpbusd_epi32(sums[r][0].v, first, four);
    sums[r][1].v = _mm512_dpbusd_epi32(sums[r][1].v, second, four);
  });
}

// Sums start at zeros: one start for two sums would have compilers copy registers.
template <std::size_t R>
RAMIFY_INLINE inline void start_at_zero(Sums<R>& sums) {
  unrolled<R>([&](auto r) RAMIFY_INLINE { sums[r][0].v = sums[r][1].v = _mm512_setzero_si512(); });
}

template <std::size_t R>
RAMIFY_INLINE inline void add_starts(Sums<R>& sums, const std::int32_t* starts) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const __m512i start = _mm512_set1_epi32(starts[r]);
    sums[r][0].v = _mm512_add_epi32(sums[r][0].v, start);
    sums[r][1].v = _mm512_add_epi32(sums[r][1].v, start);
  });
}

template <std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_eight_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  start_at_zero<R>(sums);
  const std::uint8_t* weights = codes.weights;
  const std::int8_t* rows = codes.rows;
  const std::uint8_t* const end = weights + chunk * LANES;
  do {
    unrolled<4>([&](auto step) RAMIFY_INLINE {
      const std::uint8_t* at = weights + step * STEP_BYTES;
      add_step<R>(sums, load_step(at), load_step(at + codes.block_bytes), rows + step * 4 * R);
    });
    weights += 4 * STEP_BYTES;
    rows += 16 * R;
  } while (weights != end);
  add_starts<R>(sums, codes.starts);
}

// 32 inputs of 4 bits.
template <std::size_t R>
RAMIFY_INLINE inline void add_halves(Sums<R>& sums, const std::uint8_t* weights, std::size_t block_bytes, const std::int8_t* rows) {
  const __m512i low = _mm512_set1_epi8(15);
  unrolled<HALVES_STEPS>([&](auto step) RAMIFY_INLINE {
    const __m512i first = load_step(weights + step * STEP_BYTES);
    const __m512i second = load_step(weights + step * STEP_BYTES + block_bytes);
    add_step<R>(sums, _mm512_and_si512(first, low), _mm512_and_si512(second, low), rows + step * 4 * R);
    const __m512i high_first = _mm512_and_si512(_mm512_srli_epi16(first, 4), low);
    const __m512i high_second = _mm512_and_si512(_mm512_srli_epi16(second, 4), low);
    add_step<R>(sums, high_first, high_second, rows + (step + HALVES_STEPS) * 4 * R);
  });
}

// The 16 of them that are in the low halves, or in the high ones.
template <std::size_t R>
RAMIFY_INLINE inline void sum_half(Sums<R>& sums, const ChunkCodes& codes, bool high) {
  start_at_zero<R>(sums);
  const __m128i shift = _mm_cvtsi32_si128(high ? 4 : 0);
  const __m512i low = _mm512_set1_epi8(15);
  for (std::size_t step = 0; step < HALVES_STEPS; ++step) {
    const __m512i first = _mm512_srl_epi16(load_step(codes.weights + step * STEP_BYTES), shift);
    const __m512i second = _mm512_srl_epi16(load_step(codes.weights + step * STEP_BYTES + codes.block_bytes), shift);
    add_step<R>(sums, _mm512_and_si512(first, low), _mm512_and_si512(second, low), codes.rows + step * 4 * R);
  }
  add_starts<R>(sums, codes.starts);
}

template <std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_four_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  start_at_zero<R>(sums);
  const std::uint8_t* weights = codes.weights;
  const std::int8_t* rows = codes.rows;
  const std::uint8_t* const end = weights + chunk * LANES / 2;
  do {
    add_halves<R>(sums, weights, codes.block_bytes, rows);
    weights += HALVES_STEPS * STEP_BYTES;
    rows += HALVES_INPUTS * R;
  } while (weights != end);
  add_starts<R>(sums, codes.starts);
}

// The codes of a fourth step, whose parts are beside those of the three before it.
RAMIFY_INLINE inline __m512i fourth_step(const std::uint8_t* weights) {
  const __m512i low = _mm512_set1_epi8(63);
  const __m512i first = _mm512_andnot_si512(low, _mm512_loadu_si512(weights));
  const __m512i second = _mm512_andnot_si512(low, _mm512_loadu_si512(weights + STEP_BYTES));
  const __m512i third = _mm512_andnot_si512(low, _mm512_loadu_si512(weights + 2 * STEP_BYTES));
  const __m512i lower = _mm512_or_si512(_mm512_srli_epi16(second, 4), _mm512_srli_epi16(third, 6));
  return _mm512_or_si512(_mm512_srli_epi16(first, 2), lower);
}

// 16 inputs of 6 bits, [3, 16, 4], to bytes, [4, 16, 4].
inline void unpack_six_bits(const std::uint8_t* from, std::uint8_t* to) {
  const __m512i low = _mm512_set1_epi8(63);
  unrolled<3>([&](auto step) RAMIFY_INLINE {
    _mm512_storeu_si512(to + step * STEP_BYTES, _mm512_and_si512(_mm512_loadu_si512(from + step * STEP_BYTES), low));
  });
  _mm512_storeu_si512(to + 3 * STEP_BYTES, fourth_step(from));
}

// 32 inputs of 6 bits.
template <std::size_t R>
RAMIFY_INLINE inline void add_six_bits(Sums<R>& sums, const std::uint8_t* weights, std::size_t block_bytes, const std::int8_t* rows) {
  const __m512i low = _mm512_set1_epi8(63);
  unrolled<2>([&](auto half) RAMIFY_INLINE {
    const std::uint8_t *const first = weights + half * 3 * STEP_BYTES, *const second = first + block_bytes;
    const std::int8_t* const inputs = rows + half * 16 * R;
    unrolled<3>([&](auto step) RAMIFY_INLINE {
      const __m512i of_first = _mm512_and_si512(load_step(first + step * STEP_BYTES), low);
      add_step<R>(sums, of_first, _mm512_and_si512(load_step(second + step * STEP_BYTES), low), inputs + step * 4 * R);
    });
    add_step<R>(sums, fourth_step(first), fourth_step(second), inputs + 12 * R);
  });
}

// totals [R, 2, 16] += integer scale * sum of 32 inputs, of 4 bits, of 6, or of 6 in bytes. Of 4 bits it fits 16 bits.
template <std::size_t BITS, std::size_t R>
RAMIFY_INLINE inline void add_scaled(std::int32_t* totals, const ChunkCodes& codes, const std::int8_t* scales, std::size_t next_scales) {
  Sums<R> sums;
  if constexpr (BITS == 6) {
    start_at_zero<R>(sums);
    add_six_bits<R>(sums, codes.weights, codes.block_bytes, codes.rows);
    add_starts<R>(sums, codes.starts);
  } else {
    constexpr auto SUM = BITS == 4 ? sum_four_bits<R, HALVES_INPUTS> : sum_eight_bits<R, HALVES_INPUTS>;
    SUM(sums, codes, HALVES_INPUTS);
  }
  unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE {
    const auto* const bytes = reinterpret_cast<const __m128i*>(scales + b * next_scales);
    const __m512i scale = _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes)), words = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
    unrolled<R>([&](auto r) RAMIFY_INLINE {
      std::int32_t* const to = totals + (r * TILE_BLOCKS + b) * LANES;
      const __m512i total = _mm512_loadu_si512(to);
      if constexpr (BITS == 4) {
        _mm512_storeu_si512(to, _mm512_dpwssd_epi32(total, sums[r][b].v, words));
      } else {
        _mm512_storeu_si512(to, _mm512_add_epi32(total, _mm512_mullo_epi32(sums[r][b].v, scale)));
      }
    });
  });
}

}  // namespace ramify::RAMIFY_ISA
