// Activations as 8-bit integers, in the order in which the matrix kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/simd.h"
#include "gemm/gemm_int.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t SCALED_INPUTS = 32;  // that share an integer scale

// Inputs whose products a kernel sums before it multiplies by integer scales, of weights with so many bits.
constexpr std::size_t inputs_scaled_together([[maybe_unused]] std::size_t bits) {
#if defined(RAMIFY_LANES_256)
  return bits == 4 ? 64 : 16;  // in lanes of 16 bits
#else
  return SCALED_INPUTS;
#endif
}

// What follows from a matrix's sizes.
struct Groups {
  std::size_t columns;            // inputs, padded
  std::size_t chunk;              // inputs that share both scales, or are scaled together by integers
  std::size_t chunks;
  std::size_t groups;             // of the weight
  std::size_t activation_groups;
  std::size_t chunks_together;    // those that share one of the two scales
  bool weight_outside;            // it is the weight's that they share
  std::int32_t zero;              // what is subtracted from a stored code
  std::size_t code_bytes;         // of an activation's code
  bool integer_scales;
  bool pairs;                     // of 32 inputs, whose codes are side by side, each in 16-bit lanes of its own
};

Groups groups_of(const IntMatrix& weight);

// Some rows of quantised activations that a kernel multiplies together: for each step of four inputs those of the first
// row, of the second and so on; and likewise for the values of chunks and groups.
struct QuantisedTile {
  std::size_t rows;
  std::int8_t* codes;    // [inputs / 4, rows, 4]; where codes take two bytes, the even inputs come before the odd ones
  std::int32_t* starts;  // [chunks, rows]: what corrects the products of stored codes, -zero * the sum of the codes, or
                         // two such of 16 bits (see start_of)
  float* scales;         // [activation groups, rows]
  float* shifts;         // [weight groups, rows]: what minima are multiplied with
};

// Rows cut into tiles of nearly equal height.
struct Tiling {
  std::size_t rows;
  std::size_t tiles;

  Tiling(std::size_t rows, std::size_t largest) : rows(rows), tiles((rows + largest - 1) / largest) {}
  std::size_t height(std::size_t tile) const { return rows / tiles + (tile < rows % tiles ? 1 : 0); }
  std::size_t first(std::size_t tile) const {
    return tile * (rows / tiles) + (tile < rows % tiles ? tile : rows % tiles);
  }
};

// The tile's share of memory for all rows, of `bytes_of_rows` bytes at a multiple of 64.
QuantisedTile tile_of(const Groups& groups, const Tiling& tiling, std::size_t tile, void* memory);
std::size_t bytes_of_rows(const Groups& groups, std::size_t rows);

// Row `row` of the tile from x [columns of the weight].
void quantise_row(const Groups& groups, const float* x, std::size_t columns, const QuantisedTile& tile, std::size_t row);

}  // namespace ramify::RAMIFY_ISA
