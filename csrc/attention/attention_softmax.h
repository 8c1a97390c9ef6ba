// The partial softmax of the rows of a panel over one range.
#pragma once

#include "attention/attention_kernels.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t PANEL = 48;  // rows whose scores of a range are held at once: a multiple of every MAX_ROWS and of 16

// What every row of a range needs to know.
struct RangeView {
  std::size_t begin;          // keys of the range that any row sees,
  std::size_t end;
  bool whole;                 // each row sees all keys
  const float* key_scales;    // [RANGE] of int8, or null
  const float* value_scales;  // likewise
};

inline F32x16 lane_numbers(std::size_t first) {
  alignas(64) static constexpr float NUMBERS[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return F32x16::load(NUMBERS) + F32x16::broadcast(static_cast<float>(first));
}

// -inf outside of the keys [begin, end).
inline F32x16 masked(F32x16 scores, std::size_t first, std::size_t begin, std::size_t end) {
  const F32x16 nothing = F32x16::broadcast(-std::numeric_limits<float>::infinity()), place = lane_numbers(first);
  scores = where_less(place, F32x16::broadcast(static_cast<float>(begin)), nothing, scores);
  return where_less(place, F32x16::broadcast(static_cast<float>(end)), scores, nothing);
}

// The largest score of a row that sees all keys.
template <std::size_t Groups>
inline float largest_score(const float* scores) {
  F32x16 largest = F32x16::broadcast(-std::numeric_limits<float>::infinity());
#pragma GCC unroll 16
  for (std::size_t g = 0; g < Groups; ++g) largest = max(largest, F32x16::load(scores + g * LANES));
  return reduce_max(largest);
}

// Scales the scores of int8 keys, and lets those beyond the keys [begin, end) be -inf.
inline void mask_row(float* scores, std::size_t begin, std::size_t end, const RangeView& view) {
  for (std::size_t at = 0; at < view.end; at += LANES) {
    F32x16 group = F32x16::load(scores + at);
    if (view.key_scales != nullptr) group = group * F32x16::load(view.key_scales + at);
    if (begin > at || end < at + LANES) group = masked(group, at, begin, end);
    group.store(scores + at);
  }
}

// Turns the scores of rows into weights: 2^(score - maximum) and their sum. To add up the lanes of a sum takes steps that
// wait for each other, so that is left for the end, where rows overlap.
template <std::size_t Groups>
inline void weigh_rows(float* scores, std::size_t rows, const float* maximum, float* sum) {
  alignas(64) float lanes[PANEL * LANES];
  for (std::size_t r = 0; r < rows; ++r) {
    const F32x16 maxima = F32x16::broadcast(maximum[r]);
    F32x16 total = F32x16::zero();
#pragma GCC unroll 1
    for (std::size_t g = 0; g < Groups; ++g) {  // not unrolled: the constants of exp2 have to stay in registers
      const F32x16 weights = exp2(F32x16::load(scores + r * RANGE + g * LANES) - maxima);
      weights.store(scores + r * RANGE + g * LANES);
      total = total + weights;
    }
    total.store(lanes + r * LANES);
  }
  for (std::size_t r = 0; r < rows; ++r) sum[r] = reduce_add(F32x16::load(lanes + r * LANES));
}

// Weights of int8 values: each times the scale of its value.
inline void scale_weights(float* weights, const RangeView& view) {
  for (std::size_t at = 0; at < view.end; at += LANES) {
    (F32x16::load(weights + at) * F32x16::load(view.value_scales + at)).store(weights + at);
  }
}

}  // namespace ramify::RAMIFY_ISA
