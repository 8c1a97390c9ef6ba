// By AVX-512 VNNI: four products of a stored code (unsigned) and an activation (signed) a lane and instruction.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 12;  // 24 sums, two weights as stored and as codes, an activation, a mask: 30 registers
constexpr std::size_t TILE_BLOCKS = 2;

struct I32x16 {
  __m512i v;

  static I32x16 zero() { return {_mm512_setzero_si512()}; }
  static I32x16 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
  void store(std::int32_t* p) const { _mm512_storeu_si512(p, v); }
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

// Four inputs in low halves and those four steps later in high ones.
template <std::size_t R>
RAMIFY_INLINE inline void add_nibbles(Sums<R>& sums, __m512i first, __m512i second, const std::int8_t* rows) {
  const __m512i low = _mm512_set1_epi8(15);
  add_step<R>(sums, _mm512_and_si512(first, low), _mm512_and_si512(second, low), rows);
  const __m512i high_first = _mm512_and_si512(_mm512_srli_epi16(first, 4), low);
  const __m512i high_second = _mm512_and_si512(_mm512_srli_epi16(second, 4), low);
  add_step<R>(sums, high_first, high_second, rows + HALVES_STEPS * 4 * R);
}

// 32 inputs of 4 bits.
template <std::size_t R>
RAMIFY_INLINE inline void add_halves(Sums<R>& sums, const std::uint8_t* weights, std::size_t block_bytes, const std::int8_t* rows) {
  unrolled<HALVES_STEPS>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* const at = weights + step * STEP_BYTES;
    add_nibbles<R>(sums, load_step(at), load_step(at + block_bytes), rows + step * 4 * R);
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

using Scales = __m512i;  // of 4 bits, where a sum fits 16 bits, those of its other half are zeros

template <std::size_t BITS>
RAMIFY_INLINE inline Scales load_scales(const std::int8_t* scales) {
  const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
  return BITS == 4 ? _mm512_and_si512(wide, _mm512_set1_epi32(0xffff)) : wide;
}

// total + sums * scales.
template <std::size_t BITS>
RAMIFY_INLINE inline I32x16 scaled(const I32x16& total, const I32x16& sums, const Scales& scales) {
  if constexpr (BITS == 4) return {_mm512_dpwssd_epi32(total.v, sums.v, scales)};
  return {_mm512_add_epi32(total.v, _mm512_mullo_epi32(sums.v, scales))};
}

// Two steps of a pair of 32 inputs (see kernels/blocks.py), as four inputs of one 32: of the other in `second`'s place.
RAMIFY_INLINE inline __m512i one_of_pair(const std::uint8_t* weights, __mmask32 second) {
  const __m512i even = load_step(weights), odd = load_step(weights + STEP_BYTES);
  return _mm512_mask_blend_epi16(second, even, _mm512_rol_epi32(odd, 16));
}

// The 32 inputs of 4 bits of either half of a pair.
template <std::size_t R>
RAMIFY_INLINE inline void add_half_of_pair(Sums<R>& sums, const ChunkCodes& codes, const std::uint8_t* weights, bool second) {
  const __mmask32 from_odd = second ? 0x55555555 : 0xaaaaaaaa;
  unrolled<HALVES_STEPS>([&](auto step) RAMIFY_INLINE {
    const std::uint8_t* const at = weights + 2 * step * STEP_BYTES;
    add_nibbles<R>(sums, one_of_pair(at, from_odd), one_of_pair(at + codes.block_bytes, from_odd), codes.rows + step * 4 * R);
  });
}

template <std::size_t BITS, std::size_t R>
RAMIFY_INLINE inline void sum_part(Sums<R>& sums, const ChunkCodes& codes, std::size_t part) {
  start_at_zero<R>(sums);
  if constexpr (BITS == 4) {
    add_half_of_pair<R>(sums, codes, codes.weights + part / 2 * PAIR_STEPS * STEP_BYTES, part % 2 != 0);
  } else if constexpr (BITS == 6) {
    add_six_bits<R>(sums, codes.weights + part * 6 * STEP_BYTES, codes.block_bytes, codes.rows);
  } else {
    unrolled<8>([&](auto step) RAMIFY_INLINE {
      const std::uint8_t* at = codes.weights + (part * 8 + step) * STEP_BYTES;
      add_step<R>(sums, load_step(at), load_step(at + codes.block_bytes), codes.rows + step * 4 * R);
    });
  }
  add_starts<R>(sums, codes.starts);
}

}  // namespace ramify::RAMIFY_ISA
