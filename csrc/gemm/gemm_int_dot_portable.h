// By plain loops.
#pragma once

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_ROWS = 4;
constexpr std::size_t TILE_BLOCKS = 1;

struct I32x16 {
  std::int32_t v[LANES];

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

// totals [R, 16] += integer scale * sum of 32 inputs, of 4 bits, of 6, or of 6 in bytes.
template <std::size_t BITS, std::size_t R>
inline void add_scaled(std::int32_t* totals, const ChunkCodes& codes, const std::int8_t* scales, std::size_t) {
  Sums<R> sums;
  if constexpr (BITS == 4) {
    sum_four_bits<R, HALVES_INPUTS>(sums, codes, HALVES_INPUTS);
  } else {
    ChunkCodes bytes = codes;
    std::uint8_t unpacked[HALVES_INPUTS * LANES];
    if constexpr (BITS == 6) {
      unpack_six_bits(codes.weights, unpacked);
      unpack_six_bits(codes.weights + 3 * STEP_BYTES, unpacked + 4 * STEP_BYTES);
      bytes.weights = unpacked;
    }
    sum_eight_bits<R, HALVES_INPUTS>(sums, bytes, HALVES_INPUTS);
  }
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t i = 0; i < LANES; ++i) totals[r * LANES + i] += scales[i] * sums[r][0].v[i];
  }
}

}  // namespace ramify::RAMIFY_ISA
