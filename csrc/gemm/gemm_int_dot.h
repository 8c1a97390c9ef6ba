// Exact integer sums of one chunk of inputs, for a tile of R rows times 16 columns (or twice 16).
#pragma once

#include "core/simd.h"
#include "core/unrolled.h"
#include "gemm/quantise.h"

namespace ramify::RAMIFY_ISA {

// Where a chunk's codes are, of weights (beside integer scales: where those of all chunks begin) and of activations.
struct ChunkCodes {
  const std::uint8_t* weights;  // of the first block of columns
  std::size_t block_bytes;      // from there to the next block
  const std::int8_t* rows;      // [chunk / 4, R, 4]
  const std::int32_t* starts;   // [R]
};

constexpr std::size_t STEP_BYTES = 64;      // four inputs of 16 columns
constexpr std::size_t HALVES_STEPS = 4;     // steps of 64 bytes that hold 32 inputs of 4 bits
constexpr std::size_t HALVES_INPUTS = 32;
constexpr std::size_t PAIR_STEPS = 8;       // steps that hold 64 of them with integer scales

// Weights are read once in order, from memory as soon as there are few rows; hardware looks ahead within a page only.
RAMIFY_INLINE inline void prefetch_weights([[maybe_unused]] const std::uint8_t* weights) {
#if defined(RAMIFY_LANES_512) || defined(RAMIFY_LANES_256)
  constexpr std::size_t BYTES_AHEAD = 4096;  // what a core reads while memory that others read too answers
  const auto address = reinterpret_cast<std::uintptr_t>(weights) + BYTES_AHEAD;  // perhaps past the end
  _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0);
#endif
}

RAMIFY_INLINE inline std::int32_t load_four(const std::int8_t* codes) {
  std::int32_t four;
  std::memcpy(&four, codes, 4);
  return four;
}

}  // namespace ramify::RAMIFY_ISA

#if defined(RAMIFY_LANES_512)
#include "gemm/gemm_int_dot_512.h"
#elif defined(RAMIFY_LANES_256)
#include "gemm/gemm_int_dot_256.h"
#else
#include "gemm/gemm_int_dot_portable.h"
#endif
