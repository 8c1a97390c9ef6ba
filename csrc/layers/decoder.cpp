#include "layers/decoder.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/dispatch.h"
#include "core/thread_pool.h"

namespace ramify {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 8192;
// Rows of the MLP at once: enough to be worth reading the weights again, few enough for its wide results to stay small.
constexpr std::size_t MLP_ROWS = 256;

float* at_least(Scratch& memory, std::size_t floats) { return static_cast<float*>(memory.get(floats * sizeof(float))); }

void reorder(const float* x, const std::int64_t* order, std::size_t rows, std::size_t columns, float* out) {
  parallel_for(rows, 1 + ELEMENTS_AT_ONCE / columns, [=](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      for (std::size_t i = 0; i < columns; ++i) out[row * columns + i] = x[row * columns + static_cast<std::size_t>(order[i])];
    }
  });
}

void expect(bool fits, const char* what) {
  if (!fits) throw std::invalid_argument(std::string("decoder: ") + what);
}

}  // namespace

std::size_t Projection::rows() const {
  return std::visit([](const auto& matrix) { return matrix.rows; }, weight);
}

std::size_t Projection::columns() const {
  return std::visit([](const auto& matrix) { return matrix.columns; }, weight);
}

void DecoderStack::add_layer(const DecoderLayer& layer) {
  const std::size_t hidden = layer.qkv.columns(), queries = heads_.query_heads * heads_.head_dim;
  expect(layers_.empty() || layers_.front().qkv.columns() == hidden, "layers differ in their hidden size");
  expect(layer.qkv.rows() == queries + 2 * heads_.kv_heads * heads_.head_dim, "the qkv projection does not fit the heads");
  expect(layer.output.columns() == queries && layer.output.rows() == hidden, "the output projection does not fit the heads");
  expect(layer.gate_up.columns() == hidden && layer.gate_up.rows() == 2 * layer.down.columns(), "gate and up do not fit down");
  expect(layer.down.rows() == hidden, "the down projection does not fit the hidden size");
  expect(heads_.head_dim <= MAX_HEAD_DIM, "heads are too large");
  layers_.push_back(layer);
}

void DecoderStack::set_cache(std::vector<KVLayer> cache) {
  expect(cache.size() == layers_.size(), "the cache has another number of layers");
  cache_ = std::move(cache);
}

void DecoderStack::run(const AttentionPlan& plan, const DecoderBatch& batch) {
  expect(cache_.size() == layers_.size(), "there is no cache");
  expect(plan.rows == batch.rows, "the plan is of another batch");
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    expect(static_cast<std::size_t>(plan.largest_block) < cache_[i].blocks, "a block table names a block that is not there");
    attend(layers_[i], cache_[i], plan, batch);
    for (std::size_t first = 0; first < batch.rows; first += MLP_ROWS) {
      mlp(layers_[i], batch.x + first * hidden(), std::min(MLP_ROWS, batch.rows - first));
    }
  }
}

void DecoderStack::attend(const DecoderLayer& layer, const KVLayer& cache, const AttentionPlan& plan,
                          const DecoderBatch& batch) {
  const std::size_t width = heads_.query_heads * heads_.head_dim;
  const float* normed = norm(layer.attention_norm, batch.x, batch.rows);
  float* qkv = at_least(projected_, batch.rows * layer.qkv.rows());
  multiply(layer.qkv, normed, batch.rows, nullptr, qkv);
  float* queries = at_least(queries_, batch.rows * width);
  const HeadsInput input{qkv, layer.query_norm, layer.key_norm, eps_, batch.cosines, batch.sines, batch.slots};
  operators().rotary.place_heads(input, heads_, batch.rows, cache, queries);
  float* attended = at_least(attended_, batch.rows * width);
  operators().attention.attend(plan, {queries, width, attended, cache, scale_, layer.window, nullptr});
  multiply(layer.output, attended, batch.rows, batch.x, batch.x);
}

void DecoderStack::mlp(const DecoderLayer& layer, float* x, std::size_t rows) {
  const float* normed = norm(layer.mlp_norm, x, rows);
  float* gate_up = at_least(projected_, rows * layer.gate_up.rows());
  multiply(layer.gate_up, normed, rows, nullptr, gate_up);
  float* activated = at_least(activated_, rows * layer.down.columns());
  operators().activation.silu_and_multiply(gate_up, rows, layer.down.columns(), activated);
  multiply(layer.down, activated, rows, x, x);
}

const float* DecoderStack::norm(const float* weight, const float* x, std::size_t rows) {
  float* normed = at_least(normed_, rows * hidden());
  operators().norm.rms_norm(x, nullptr, weight, eps_, rows, hidden(), nullptr, normed);
  return normed;
}

void DecoderStack::multiply(const Projection& projection, const float* x, std::size_t rows, const float* residual, float* out) {
  if (projection.order != nullptr) {
    float* ordered = at_least(ordered_, rows * projection.columns());
    reorder(x, projection.order, rows, projection.columns(), ordered);
    x = ordered;
  }
  const FloatProduct product{x, rows, projection.bias, residual, out};
  if (const auto* floats = std::get_if<FloatMatrix>(&projection.weight)) {
    operators().gemm_float.linear(*floats, product);
    return;
  }
  const auto& codes = std::get<IntMatrix>(projection.weight);
  if (codes.activation_group == 0) {
    operators().gemm_float.linear_coded(codes, product);
  } else {
    operators().gemm_int.linear(codes, x, rows, projection.bias, residual, out);
  }
}

}  // namespace ramify
