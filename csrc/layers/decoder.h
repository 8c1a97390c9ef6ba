// The layers of a decoder in one call: the same operators in the same order as one by one, without a way back to Python
// between them. The same for every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "attention/attention_plan.h"
#include "core/scratch.h"
#include "gemm/gemm_float.h"
#include "gemm/gemm_int.h"
#include "attention/kv_types.h"
#include "layers/rotary.h"

namespace ramify {

// y = x W^T + b. Weights and what else is pointed to belong to the caller.
struct Projection {
  std::variant<IntMatrix, FloatMatrix> weight;
  const float* bias;          // or null
  const std::int64_t* order;  // the input that each column of the weight belongs to, or null

  std::size_t rows() const;
  std::size_t columns() const;
};

struct DecoderLayer {
  const float* attention_norm;
  Projection qkv;
  const float* query_norm;  // of a head, or null
  const float* key_norm;
  Projection output;
  const float* mlp_norm;
  Projection gate_up;
  Projection down;
  std::size_t window;  // 0 sees all
};

struct DecoderBatch {
  float* x;  // [rows, hidden], in and out
  std::size_t rows;
  const float* cosines;      // [rows, head_dim / 2]
  const float* sines;        // [rows, head_dim / 2]
  const std::int64_t* slots;  // [rows]
};

class DecoderStack {
 public:
  // `scale` multiplies the scores of attention, `eps` is of all norms.
  DecoderStack(HeadsShape heads, float scale, float eps) : heads_(heads), scale_(scale), eps_(eps) {}

  // Throws std::invalid_argument for a layer whose sizes do not fit together.
  void add_layer(const DecoderLayer& layer);

  // The cache of each layer.
  void set_cache(std::vector<KVLayer> cache);

  // Runs a batch through all layers. Throws std::invalid_argument for a plan that does not fit batch and cache.
  void run(const AttentionPlan& plan, const DecoderBatch& batch);

 private:
  std::size_t hidden() const { return layers_.front().qkv.columns(); }
  void attend(const DecoderLayer& layer, const KVLayer& cache, const AttentionPlan& plan, const DecoderBatch& batch);
  void mlp(const DecoderLayer& layer, float* x, std::size_t rows);
  const float* norm(const float* weight, const float* x, std::size_t rows);
  void multiply(const Projection& projection, const float* x, std::size_t rows, const float* residual, float* out);

  HeadsShape heads_;
  float scale_;
  float eps_;
  std::vector<DecoderLayer> layers_;
  std::vector<KVLayer> cache_;
  Scratch normed_, projected_, queries_, attended_, activated_, ordered_;
};

}  // namespace ramify
