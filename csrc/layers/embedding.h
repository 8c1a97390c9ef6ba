// Rows of a table of embeddings.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramify {

struct EmbeddingOps {
  // out[i] = table[ids[i]] in float32; the table is [*, size], bfloat16 or float32.
  void (*gather)(const void* table, bool bfloat16, const std::int64_t* ids, std::size_t count, std::size_t size, float* out);
};

}  // namespace ramify
