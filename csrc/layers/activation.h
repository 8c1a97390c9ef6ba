// The activation of the gated MLP (SwiGLU, arXiv:2002.05202).
#pragma once

#include <cstddef>

namespace ramify {

struct ActivationOps {
  // out[r] = silu(x[r, :size]) * x[r, size:] for rows [rows, 2 * size].
  void (*silu_and_multiply)(const float* x, std::size_t rows, std::size_t size, float* out);
};

}  // namespace ramify
