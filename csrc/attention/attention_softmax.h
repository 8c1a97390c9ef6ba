// The partial softmax of one row over one range.
#pragma once

#include "attention/attention_kernels.h"

namespace ramify::RAMIFY_ISA {

// What every row of a range needs to know.
struct RangeView {
  std::size_t begin;          // keys of the range that any row sees,
  std::size_t end;
  const float* key_scales;    // [RANGE] of int8, or null
  const float* value_scales;  // likewise
};

struct Partial {
  float maximum, sum;
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

// Turns the scores of the keys [begin, end), in powers of two, into weights; all others of the groups become zero.
template <std::size_t Groups>
inline Partial softmax_groups(float* scores, std::size_t begin, std::size_t end, const RangeView& view) {
  F32x16 held[Groups];
  F32x16 largest = F32x16::broadcast(-std::numeric_limits<float>::infinity());
  for (std::size_t g = 0; g < Groups; ++g) {
    held[g] = F32x16::load(scores + g * LANES);
    if (view.key_scales != nullptr) held[g] = held[g] * F32x16::load(view.key_scales + g * LANES);
    if (begin > g * LANES || end < (g + 1) * LANES) held[g] = masked(held[g], g * LANES, begin, end);
    largest = max(largest, held[g]);
  }
  const float maximum = reduce_max(largest);
  const F32x16 maxima = F32x16::broadcast(maximum);
  F32x16 sum = F32x16::zero();
  for (std::size_t g = 0; g < Groups; ++g) {
    held[g] = exp2(held[g] - maxima);
    sum = sum + held[g];
    held[g].store(scores + g * LANES);
  }
  return {maximum, reduce_add(sum)};
}

// Groups of 16 keys that no row sees are left out: they would add zeros.
inline Partial partial_softmax(float* scores, std::size_t begin, std::size_t end, const RangeView& view) {
  switch ((view.end + LANES - 1) / LANES) {
    case 1: return softmax_groups<1>(scores, begin, end, view);
    case 2: return softmax_groups<2>(scores, begin, end, view);
    case 3: return softmax_groups<3>(scores, begin, end, view);
    default: return softmax_groups<RANGE / LANES>(scores, begin, end, view);
  }
}

// Weights of int8 values: each times the scale of its value.
inline void scale_weights(float* weights, const RangeView& view) {
  for (std::size_t at = 0; at < view.end; at += LANES) {
    (F32x16::load(weights + at) * F32x16::load(view.value_scales + at)).store(weights + at);
  }
}

}  // namespace ramify::RAMIFY_ISA
