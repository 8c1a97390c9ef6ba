#include "layers/embedding.h"

#include "core/simd.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 16384;

void widen(const bf16* x, std::size_t size, float* out) {
  std::size_t i = 0;
  for (; i + LANES <= size; i += LANES) F32x16::load_bf16(x + i).store(out + i);
  for (; i < size; ++i) out[i] = bf16_to_float(x[i]);
}

void gather(const void* table, bool bfloat16, const std::int64_t* ids, std::size_t count, std::size_t size, float* out) {
  parallel_for(count, 1 + ELEMENTS_AT_ONCE / size, [=](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t at = static_cast<std::size_t>(ids[i]) * size;
      if (bfloat16) {
        widen(static_cast<const bf16*>(table) + at, size, out + i * size);
      } else {
        const float* row = static_cast<const float*>(table) + at;
        std::copy(row, row + size, out + i * size);
      }
    }
  });
}

}  // namespace

EmbeddingOps embedding_ops() { return {.gather = gather}; }

}  // namespace ramify::RAMIFY_ISA
