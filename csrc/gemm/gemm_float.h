// Products of float rows with packed weights (see kernels/packed.py): float32, bfloat16, and 8- or 4-bit codes with a
// scale a group.
//
// One output is one chain of fused multiply-adds in the order of the inputs (for codes: one chain a group from zero, added
// to the total by the group's scale), whatever the number of rows, their blocks, and the threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm/gemm_int.h"

namespace ramify {

// Blocks of 16 columns, their number even, inputs padded to 32.
struct FloatMatrix {
  const void* values;
  bool bfloat16;  // rather than float32
  std::size_t rows;
  std::size_t columns;
};

// out = x @ weight.T + bias + residual: x [count, columns], bias [rows] or null, residual [count, rows] or null, out
// [count, rows], which may be the residual.
struct FloatProduct {
  const float* x;
  std::size_t count;
  const float* bias;
  const float* residual;
  float* out;
};

struct GemmFloatOps {
  // With a bfloat16 weight activations are rounded to bfloat16; sums are float32.
  void (*linear)(const FloatMatrix& weight, const FloatProduct& product);
  // Codes with activations that stay floats.
  void (*linear_coded)(const IntMatrix& weight, const FloatProduct& product);
  // out[i] = row ids[i] of the weight, as floats.
  void (*gather)(const FloatMatrix& weight, const std::int64_t* ids, std::size_t count, float* out);
};

}  // namespace ramify
