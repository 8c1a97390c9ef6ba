// How much attention each block gets, for policies that decide which blocks to keep: optional, beside the outputs.
#pragma once

#include <cstring>

#include "attention/attention.h"
#include "core/simd.h"
#include "attention/attention_kernels.h"

namespace ramify::RAMIFY_ISA {

// Sums of weights by block, relative to the maximum of their range; made into probabilities when all rows are done.
class ScoreBuffers {
 public:
  static std::size_t ranges(const AttentionPlan& plan) {
    const std::size_t per_range = RANGE / plan.shape.block_size;
    return (plan.max_blocks + per_range - 1) / per_range;
  }

  static std::size_t floats(const AttentionPlan& plan) {
    return plan.rows * plan.shape.group * plan.shape.kv_heads * (plan.max_blocks + ranges(plan) + 2);
  }

  ScoreBuffers(const AttentionPlan& plan, const AttentionCall& call, float* memory) : plan_(plan), call_(call), memory_(memory) {
    if (memory != nullptr) std::memset(memory, 0, floats(plan) * sizeof(float));
  }

  bool wanted() const { return memory_ != nullptr; }

  // One row's weights of one range. place: token * heads + head.
  void note_range(std::size_t place, std::size_t range, std::size_t block_size, float maximum, const float* weights,
                  std::size_t end) const {
    if (memory_ == nullptr) return;
    maxima(place)[range] = maximum;
    for (std::size_t key = 0; key < end; ++key) sums(place)[(range * RANGE + key) / block_size] += weights[key];
  }

  // One row's end: its maximum and one over its sum.
  void note_row(std::size_t place, float maximum, float factor) const {
    if (memory_ == nullptr) return;
    ends(place)[0] = maximum;
    ends(place)[1] = factor;
  }

  void finish() const {
    if (memory_ == nullptr) return;
    const std::size_t group = plan_.shape.group, blocks = plan_.max_blocks, per_range = RANGE / plan_.shape.block_size;
    for (std::size_t to = 0; to < plan_.rows * plan_.shape.kv_heads; ++to) {
      float* scores = call_.block_scores + to * blocks;
      std::memset(scores, 0, blocks * sizeof(float));
      for (std::size_t place = to * group; place < (to + 1) * group; ++place) {
        for (std::size_t block = 0; block < blocks; ++block) {
          const float sum = sums(place)[block];
          if (sum == 0.0f) continue;
          scores[block] += sum * power(maxima(place)[block / per_range] - ends(place)[0]) * ends(place)[1];
        }
      }
    }
  }

 private:
  static float power(float x) {
    alignas(64) float lanes[LANES];
    exp2(F32x16::broadcast(x)).store(lanes);
    return lanes[0];
  }
  std::size_t places() const { return plan_.rows * plan_.shape.group * plan_.shape.kv_heads; }
  float* sums(std::size_t place) const { return memory_ + place * plan_.max_blocks; }
  float* maxima(std::size_t place) const { return memory_ + places() * plan_.max_blocks + place * ranges(plan_); }
  float* ends(std::size_t place) const { return memory_ + places() * (plan_.max_blocks + ranges(plan_)) + place * 2; }

  const AttentionPlan& plan_;
  const AttentionCall& call_;
  float* const memory_;
};

}  // namespace ramify::RAMIFY_ISA
