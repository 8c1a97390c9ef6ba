// What happens to queries, keys and values between their projection and the attention: norms of heads, rotary positions
// (arXiv:2104.09864), the write into the cache; in one pass over the fused projection.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kv_types.h"

namespace ramify {

constexpr std::size_t MAX_HEAD_DIM = 1024;

struct HeadsShape {
  std::size_t query_heads;
  std::size_t kv_heads;
  std::size_t head_dim;  // even, at most MAX_HEAD_DIM
};

struct HeadsInput {
  const float* qkv;          // [rows, (query_heads + 2 * kv_heads) * head_dim]
  const float* query_norm;   // [head_dim], or null
  const float* key_norm;     // [head_dim], or null
  float eps;                 // of both norms
  const float* cosines;      // [rows, head_dim / 2]
  const float* sines;        // [rows, head_dim / 2]
  const std::int64_t* slots;  // [rows] places in the cache: block * block_size + offset
};

struct RotaryOps {
  // Writes the rotated queries to `queries` [rows, query_heads, head_dim], rotated keys and plain values to the cache.
  void (*place_heads)(const HeadsInput& input, const HeadsShape& shape, std::size_t rows, const KVLayer& layer,
                      float* queries);
};

}  // namespace ramify
