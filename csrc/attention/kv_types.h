// How keys and values of one layer lie in memory.
//
// Keys lie transposed within a block, so that one load gives the same dimension of consecutive keys; values lie as rows.
#pragma once

#include <cstddef>

namespace ramify {

enum class KVType : int { float32 = 0, bfloat16 = 1, int8 = 2 };

struct KVLayer {
  void* keys;           // [kv_heads][blocks][head_dim][block_size]
  void* values;         // [kv_heads][blocks][block_size][head_dim]
  float* key_scales;    // [kv_heads][blocks][block_size] of int8, else null
  float* value_scales;  // likewise
  std::size_t kv_heads, blocks, block_size, head_dim;
  KVType type;
};

}  // namespace ramify
