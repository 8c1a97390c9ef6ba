// Paged attention over a flat ragged batch, straight from the block tables.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/attention_plan.h"
#include "attention/kv_types.h"

namespace ramify {

struct AttentionCall {
  const float* query;  // [T][heads][head_dim], rows `query_stride` floats apart
  std::size_t query_stride;
  float* out;  // [T][heads][head_dim]
  KVLayer layer;
  float scale;
  std::size_t window;   // a row sees so many positions back, its own included; 0 sees all
  float* block_scores;  // [T][kv_heads][max_blocks]: attention paid to each block, summed over a group's heads; or null
};

struct AttentionOps {
  void (*attend)(const AttentionPlan& plan, const AttentionCall& call);
  // Stores keys and values [tokens][kv_heads][head_dim], rows so many floats apart, at `slots` (block * block_size + offset).
  void (*store)(const KVLayer& layer, const float* keys, const float* values, std::size_t key_stride, std::size_t value_stride,
                const std::int64_t* slots, std::size_t tokens);
};

}  // namespace ramify
