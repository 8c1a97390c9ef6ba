#include "attention/attention.h"

#include "attention/attention_work.h"
#include "attention/kv_layout.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

template <class Element>
void attend_wave(const AttentionPlan& plan, const AttentionCall& call, const ScoreBuffers& buffers, const AttentionWave& wave,
                 float* memory) {
  const std::size_t kv_heads = plan.shape.kv_heads, width = round_up(call.layer.head_dim);
  const std::size_t a_head = state_floats(wave.partial_rows, width);
  const auto partials = [=, &wave](std::size_t head) {
    Carver carver(memory + head * a_head);
    return carver.take_state(wave.partial_rows, width);
  };
  parallel_for(wave.items.size() * kv_heads, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Work<Element>(plan, call, buffers, i % kv_heads).run(wave.items[i / kv_heads], partials(i % kv_heads));
    }
  });
  parallel_for(wave.split.size() * kv_heads, 4, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Work<Element>(plan, call, buffers, i % kv_heads).merge(plan.tiles[wave.split[i / kv_heads]], partials(i % kv_heads));
    }
  });
}

template <class Element>
void attend_all(const AttentionPlan& plan, const AttentionCall& call) {
  const std::size_t width = round_up(call.layer.head_dim), kv_heads = plan.shape.kv_heads;
  std::size_t floats = 0;
  for (const AttentionWave& wave : plan.waves) floats = std::max(floats, kv_heads * state_floats(wave.partial_rows, width));
  const std::size_t wanted = call.block_scores != nullptr ? ScoreBuffers::floats(plan) : 0;
  float* memory = shared_scratch(round_up(floats) + wanted);
  const ScoreBuffers buffers(plan, call, wanted != 0 ? memory + round_up(floats) : nullptr);
  for (const AttentionWave& wave : plan.waves) attend_wave<Element>(plan, call, buffers, wave, memory);
  buffers.finish();
}

void attend(const AttentionPlan& plan, const AttentionCall& call) {
  switch (call.layer.type) {
    case KVType::float32: return attend_all<float>(plan, call);
    case KVType::bfloat16: return attend_all<bf16>(plan, call);
    case KVType::int8: return attend_all<std::int8_t>(plan, call);
  }
}

void store(const KVLayer& layer, const float* keys, const float* values, std::size_t key_stride, std::size_t value_stride,
           const std::int64_t* slots, std::size_t tokens) {
  parallel_for(tokens, 16, [=, &layer](std::size_t begin, std::size_t end) {
    for (std::size_t head = 0; head < layer.kv_heads; ++head) {
      for (std::size_t token = begin; token < end; ++token) {
        const auto slot = static_cast<std::size_t>(slots[token]);
        store_key(layer, head, slot, keys + token * key_stride + head * layer.head_dim);
        store_value(layer, head, slot, values + token * value_stride + head * layer.head_dim);
      }
    }
  });
}

}  // namespace

AttentionOps attention_ops() { return {.attend = attend, .store = store}; }

}  // namespace ramify::RAMIFY_ISA
