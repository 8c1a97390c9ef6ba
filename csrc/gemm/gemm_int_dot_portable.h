// By plain loops.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 4;
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  std::int32_t v[LANES];

  static I32x16 zero() { return {}; }
  static I32x16 load(const std::int32_t* p) {
    I32x16 out;
    std::copy_n(p, LANES, out.v);
    return out;
  }
  void store(std::int32_t* p) const { std::copy_n(v, LANES, p); }
  F32x16 to_float() const { return F32x16::load(v); }
};

template <std::size_t R>
using Sums = I32x16[R][TILE_BLOCKS];

// One step of four inputs; a stored byte becomes `code(byte)`.
template <std::size_t R, class Code>
inline void add_step(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows, Code code) {
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t i = 0; i < STEP_BYTES; ++i) sums[r][0].v[i / 4] += code(weights[i]) * rows[4 * r + i % 4];
  }
}

template <std::size_t R>
inline void start(Sums<R>& sums, const std::int32_t* starts) {
  for (std::size_t r = 0; r < R; ++r) std::fill_n(sums[r][0].v, LANES, starts[r]);
}

template <std::size_t R, std::size_t CHUNK>
inline void sum_eight_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  start<R>(sums, codes.starts);
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    add_step<R>(sums, codes.weights + step * STEP_BYTES, codes.rows + step * 4 * R, [](int byte) { return byte; });
  }
}

// Low halves (or high ones) of a step.
template <std::size_t R>
inline void add_half(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows, bool high) {
  const int shift = high ? 4 : 0;
  add_step<R>(sums, weights, rows, [shift](int byte) { return byte >> shift & 15; });
}

template <std::size_t R, std::size_t CHUNK>
inline void sum_four_bits(Sums<R>& sums, const ChunkCodes& codes, std::size_t chunk) {
  start<R>(sums, codes.starts);
  for (std::size_t step = 0; step < chunk / 4; ++step) {
    const std::size_t stored = step / 8 * HALVES_STEPS + step % HALVES_STEPS;
    add_half<R>(sums, codes.weights + stored * STEP_BYTES, codes.rows + step * 4 * R, step % 8 >= HALVES_STEPS);
  }
}

// The 16 of 32 inputs of 4 bits that are in the low halves, or in the high ones.
template <std::size_t R>
inline void sum_half(Sums<R>& sums, const ChunkCodes& codes, bool high) {
  start<R>(sums, codes.starts);
  for (std::size_t step = 0; step < HALVES_STEPS; ++step) {
    add_half<R>(sums, codes.weights + step * STEP_BYTES, codes.rows + step * 4 * R, high);
  }
}

// 16 inputs of 6 bits, [3, 16, 4], to bytes, [4, 16, 4]: the codes of the fourth step are beside those of the others.
inline void unpack_six_bits(const std::uint8_t* __restrict from, std::uint8_t* __restrict to) {
  const std::uint8_t *const second = from + STEP_BYTES, *const third = second + STEP_BYTES;
  for (std::size_t i = 0; i < 3 * STEP_BYTES; ++i) to[i] = from[i] & 63;
  for (std::size_t i = 0; i < STEP_BYTES; ++i) {
    to[3 * STEP_BYTES + i] = static_cast<std::uint8_t>(from[i] >> 6 << 4 | second[i] >> 6 << 2 | third[i] >> 6);
  }
}

// What follows is for integer scales.

using Scales = const std::int8_t*;

template <std::size_t BITS>
inline Scales load_scales(const std::int8_t* scales) {
  return scales;
}

// total + sums * scales.
template <std::size_t BITS>
inline I32x16 scaled(const I32x16& total, const I32x16& sums, Scales scales) {
  I32x16 out;
  for (std::size_t i = 0; i < LANES; ++i) out.v[i] = total.v[i] + scales[i] * sums.v[i];
  return out;
}

// 32 inputs of a pair, of which each step holds two (see kernels/blocks.py).
template <std::size_t R>
inline void sum_half_of_pair(Sums<R>& sums, const std::uint8_t* weights, const std::int8_t* rows, std::size_t second) {
  for (std::size_t k = 0; k < HALVES_INPUTS; ++k) {
    const std::uint8_t* const step = weights + ((k / 2 ^ second) % PAIR_STEPS) * STEP_BYTES + 2 * second + k % 2;
    const int shift = k < HALVES_INPUTS / 2 ? 0 : 4;
    for (std::size_t r = 0; r < R; ++r) {
      const int x = rows[(k / 4 * R + r) * 4 + k % 4];
      for (std::size_t i = 0; i < LANES; ++i) sums[r][0].v[i] += (step[4 * i] >> shift & 15) * x;
    }
  }
}

template <std::size_t BITS, std::size_t R>
inline void sum_part(Sums<R>& sums, const ChunkCodes& codes, std::size_t part) {
  if constexpr (BITS == 4) {
    start<R>(sums, codes.starts);
    sum_half_of_pair<R>(sums, codes.weights + part / 2 * PAIR_STEPS * STEP_BYTES, codes.rows, part % 2);
  } else {
    ChunkCodes bytes = codes;
    bytes.weights += part * HALVES_INPUTS * LANES * BITS / 8;
    std::uint8_t unpacked[HALVES_INPUTS * LANES];
    if constexpr (BITS == 6) {
      unpack_six_bits(bytes.weights, unpacked);
      unpack_six_bits(bytes.weights + 3 * STEP_BYTES, unpacked + 4 * STEP_BYTES);
      bytes.weights = unpacked;
    }
    sum_eight_bits<R, HALVES_INPUTS>(sums, bytes, HALVES_INPUTS);
  }
}

}  // namespace ramify::RAMIFY_ISA
