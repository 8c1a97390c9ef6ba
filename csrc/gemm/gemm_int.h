// Products with integer weights: activations become 8-bit integers a row and a group of inputs at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramify {

// A packed weight (see kernels/packed.py): blocks of 16 columns, their number even, inputs padded to whole groups.
struct IntMatrix {
  const std::uint8_t* codes;
  const void* scales;  // [blocks, groups, 16]
  const void* mins;    // likewise, or null
  // bfloat16 [blocks, activation groups, 16], or null. With them a group has 32 inputs, scales are int8, and a weight is
  // code * scale * factor.
  const std::uint16_t* factors;
  bool half_scales;    // float16 rather than float32
  bool half_mins;
  std::size_t bits;  // 8 or 4; 6 or 4 with factors
  std::size_t rows;
  std::size_t columns;
  std::size_t padded_columns;
  std::size_t group;             // inputs that share a scale of the weight
  std::size_t activation_group;  // inputs that share a scale of an activation; 0 where activations stay floats
};

struct GemmIntOps {
  // out = x @ weight.T + bias + residual: x [count, columns], bias [rows] or null, residual [count, rows] or null, out
  // [count, rows], which may be the residual.
  void (*linear)(const IntMatrix& weight, const float* x, std::size_t count, const float* bias, const float* residual,
                 float* out);
  // out[i] = row ids[i] of the weight, as floats.
  void (*gather)(const IntMatrix& weight, const std::int64_t* ids, std::size_t count, float* out);
};

}  // namespace ramify
