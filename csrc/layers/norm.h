// Root-mean-square normalisation (arXiv:1910.07467).
#pragma once

#include <cstddef>

namespace ramify {

struct NormOps {
  // out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight for rows [rows, size]. With `residual`, x[r] + residual[r] takes the
  // place of x[r] and is also written to `sum`, which may be `residual` itself.
  void (*rms_norm)(const float* x, const float* residual, const float* weight, float eps, std::size_t rows, std::size_t size,
                   float* sum, float* out);
};

}  // namespace ramify
