#include "layers/rotary.h"

#include "attention/kv_layout.h"
#include "layers/norm_row.h"
#include "core/simd.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 4096;

float sum_of_squares(const float* x, std::size_t size) {
  F32x16 squares = F32x16::zero();
  for (std::size_t i = 0; i < size; i += LANES) {
    const F32x16 value = F32x16::load_first(x + i, size - i);
    squares = fma(value, value, squares);
  }
  return reduce_add(squares);
}

// Dimension i turns together with i + half. `out` may be `x`.
void rotate(const float* x, const float* cosines, const float* sines, std::size_t half, float* out) {
  for (std::size_t i = 0; i < half; i += LANES) {
    const std::size_t n = half - i;
    const F32x16 first = F32x16::load_first(x + i, n), second = F32x16::load_first(x + half + i, n);
    const F32x16 cosine = F32x16::load_first(cosines + i, n), sine = F32x16::load_first(sines + i, n);
    (first * cosine - second * sine).store_first(out + i, n);
    (second * cosine + first * sine).store_first(out + half + i, n);
  }
}

// The head at `x`, normed if there is a weight, and rotated.
void prepare_head(const float* x, const float* weight, float eps, const float* cosines, const float* sines,
                  std::size_t size, float* out) {
  if (weight != nullptr) {
    norm_row(x, weight, norm_factor(sum_of_squares(x, size), size, eps), size, out);
    x = out;
  }
  rotate(x, cosines, sines, size / 2, out);
}

void place_heads(const HeadsInput& input, const HeadsShape& shape, std::size_t rows, const KVLayer& layer,
                 float* queries) {
  const std::size_t size = shape.head_dim, width = (shape.query_heads + 2 * shape.kv_heads) * size;
  parallel_for(rows, 1 + ELEMENTS_AT_ONCE / width, [&](std::size_t begin, std::size_t end) {
    float key[MAX_HEAD_DIM];
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t slot = static_cast<std::size_t>(input.slots[row]);
      const float* cosines = input.cosines + row * (size / 2);
      const float* sines = input.sines + row * (size / 2);
      const float* head = input.qkv + row * width;
      float* out = queries + row * shape.query_heads * size;
      for (std::size_t i = 0; i < shape.query_heads; ++i, head += size, out += size) {
        prepare_head(head, input.query_norm, input.eps, cosines, sines, size, out);
      }
      for (std::size_t i = 0; i < shape.kv_heads; ++i, head += size) {
        prepare_head(head, input.key_norm, input.eps, cosines, sines, size, key);
        store_key(layer, i, slot, key);
        store_value(layer, i, slot, head + shape.kv_heads * size);
      }
    }
  });
}

}  // namespace

RotaryOps rotary_ops() { return {.place_heads = place_heads}; }

}  // namespace ramify::RAMIFY_ISA
