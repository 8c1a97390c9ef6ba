// The normalisation of one row, for the operators that do it along the way.
#pragma once

#include <cmath>

#include "core/simd.h"

namespace ramify::RAMIFY_ISA {

inline float norm_factor(float sum_of_squares, std::size_t size, float eps) {
  return 1.0f / std::sqrt(sum_of_squares / static_cast<float>(size) + eps);
}

// out = x * factor * weight; `out` may be `x`.
inline void norm_row(const float* x, const float* weight, float factor, std::size_t size, float* out) {
  const F32x16 factors = F32x16::broadcast(factor);
  for (std::size_t i = 0; i < size; i += LANES) {
    const std::size_t n = size - i;
    (F32x16::load_first(x + i, n) * factors * F32x16::load_first(weight + i, n)).store_first(out + i, n);
  }
}

}  // namespace ramify::RAMIFY_ISA
