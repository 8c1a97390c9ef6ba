#include "layers/norm.h"

#include "layers/norm_row.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 8192;

// x, or x + residual, which is then kept in `sum`; returns the sum of its squares.
float sum_of_squares(const float* x, const float* residual, std::size_t size, float* sum) {
  F32x16 squares = F32x16::zero();
  for (std::size_t i = 0; i < size; i += LANES) {
    const std::size_t n = size - i;
    F32x16 value = F32x16::load_first(x + i, n);
    if (residual != nullptr) {
      value = value + F32x16::load_first(residual + i, n);
      value.store_first(sum + i, n);
    }
    squares = fma(value, value, squares);
  }
  return reduce_add(squares);
}

void rms_norm(const float* x, const float* residual, const float* weight, float eps, std::size_t rows, std::size_t size,
              float* sum, float* out) {
  parallel_for(rows, 1 + ELEMENTS_AT_ONCE / size, [=](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t at = row * size;
      const float squares =
          sum_of_squares(x + at, residual == nullptr ? nullptr : residual + at, size, sum == nullptr ? nullptr : sum + at);
      const float factor = norm_factor(squares, size, eps);
      norm_row((residual == nullptr ? x : sum) + at, weight, factor, size, out + at);
    }
  });
}

}  // namespace

NormOps norm_ops() { return {.rms_norm = rms_norm}; }

}  // namespace ramify::RAMIFY_ISA
