#include "layers/activation.h"

#include "core/simd.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 4096;

void silu_and_multiply(const float* x, std::size_t rows, std::size_t size, float* out) {
  // A long row is shared out as well: pieces of whole registers, so that every element is computed the same way.
  const std::size_t pieces = (size + ELEMENTS_AT_ONCE - 1) / ELEMENTS_AT_ONCE;
  const F32x16 one = F32x16::broadcast(1.0f);
  parallel_for(rows * pieces, 1 + ELEMENTS_AT_ONCE / (size + 1), [=](std::size_t begin, std::size_t end) {
    for (std::size_t item = begin; item < end; ++item) {
      const std::size_t row = item / pieces, first = item % pieces * ELEMENTS_AT_ONCE;
      const float* gates = x + row * 2 * size;
      for (std::size_t i = first; i < std::min(size, first + ELEMENTS_AT_ONCE); i += LANES) {
        const F32x16 gate = F32x16::load_first(gates + i, size - i);
        const F32x16 silu = gate / (one + exp(F32x16::zero() - gate));
        (silu * F32x16::load_first(gates + size + i, size - i)).store_first(out + row * size + i, size - i);
      }
    }
  });
}

}  // namespace

ActivationOps activation_ops() { return {.silu_and_multiply = silu_and_multiply}; }

}  // namespace ramify::RAMIFY_ISA
