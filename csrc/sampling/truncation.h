// Top-k, top-p, min-p and typical-p without sorting a vocabulary: what is left of a row to draw from.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "sampling/logits_row.h"
#include "sampling/sampling.h"

namespace ramify::RAMIFY_ISA {

// Masses are added up in buckets of the key: 128 a unit, the last one open.
constexpr std::size_t BUCKETS = 4096;
constexpr float BUCKETS_A_UNIT = 128.0f;

inline std::size_t bucket_of(float key) {
  return static_cast<std::size_t>(std::min(key * BUCKETS_A_UNIT, static_cast<float>(BUCKETS - 1)));
}

// A token's distance from the most likely one is (logit - maximum) / temperature; its weight e to the power of that.
struct Weights {
  std::array<float, CHUNK> distances, weights;
};

// The tokens that truncation has left: a beginning of the order of likelihood, perhaps a least weight, perhaps those
// up to `last_typical` in the order of their nearness to `center`.
class Kept {
 public:
  Kept(const LogitsRow& row, float inverse_temperature) : row_(row), inverse_(inverse_temperature) {}

  bool skips(std::size_t chunk) const { return distance(row_.maximum(chunk)) < last_.value; }

  // Weights of a chunk's tokens, zero for those that are not kept.
  void fill(std::size_t chunk, Weights& out) const {
    const float* x = row_.chunk(chunk);
    const std::size_t length = row_.length(chunk);
    const F32x16 maximum = F32x16::broadcast(row_.maximum()), inverse = F32x16::broadcast(inverse_);
    for (std::size_t i = 0; i < length; i += LANES) {
      const F32x16 distance = (F32x16::load_first(x + i, length - i) - maximum) * inverse;
      distance.store_first(out.distances.data() + i, length - i);
      exp(distance).store_first(out.weights.data() + i, length - i);
    }
    if (truncated_) drop(out, chunk * CHUNK, length);
  }

  const LogitsRow& row() const { return row_; }
  float distance(float logit) const { return (logit - row_.maximum()) * inverse_; }

  void keep_until(const Candidate& last) {
    last_ = last;
    truncated_ = true;
  }
  void keep_weights_from(float least) {
    least_weight_ = least;
    truncated_ = true;
  }
  void keep_typical(float center, const Candidate& last) {
    center_ = center;
    last_typical_ = last;
    truncated_ = true;
  }

 private:
  // Sets the weights of what is not kept to zero. Without branches, so that it is done sixteen at a time.
  void drop(Weights& out, std::size_t first, std::size_t length) const {
    const float border = last_.value, least = least_weight_, center = center_;
    const float typical_key = last_typical_.key, typical_border = last_typical_.value;
    const int last = place(last_.id, first), last_typical = place(last_typical_.id, first);
    for (int i = 0; i < static_cast<int>(length); ++i) {
      const float distance = out.distances[i], weight = out.weights[i], key = std::fabs(distance - center);
      const bool behind = (distance < border) | ((distance == border) & (i > last));
      const bool odd = (distance < typical_border) | ((distance == typical_border) & (i > last_typical));
      const bool untypical = (key > typical_key) | ((key == typical_key) & odd);
      out.weights[i] = (weight < least) | behind | untypical ? 0.0f : weight;
    }
  }
  // A token's place in the chunk that begins at `first`, or just outside of it.
  static int place(std::size_t id, std::size_t first) {
    return id < first ? -1 : static_cast<int>(std::min(id - first, CHUNK));
  }

  const LogitsRow& row_;
  float inverse_;
  bool truncated_ = false;
  float least_weight_ = 0.0f;
  float center_ = 0.0f;
  Candidate last_{INFINITE, -INFINITE, SIZE_MAX};
  Candidate last_typical_{INFINITE, -INFINITE, SIZE_MAX};
};


// The last token that belongs to the least beginning, in the order of `key_of` (not negative), whose weights reach a
// share of the whole: a token belongs to it while those before it have not reached it.
template <class KeyOf>
Candidate last_of_share(const Kept& kept, double share, KeyOf key_of) {
  std::vector<double> masses(BUCKETS, 0.0);
  Weights chunk;
  const auto each = [&](auto&& visit) {
    for (std::size_t c = 0; c < kept.row().chunks(); ++c) {
      if (kept.skips(c)) continue;
      kept.fill(c, chunk);
      for (std::size_t i = 0; i < kept.row().length(c); ++i) {
        if (chunk.weights[i] > 0.0f) visit(key_of(chunk.distances[i]), c * CHUNK + i, i);
      }
    }
  };
  each([&](float key, std::size_t, std::size_t i) { masses[bucket_of(key)] += static_cast<double>(chunk.weights[i]); });
  double total = 0.0;
  for (const double mass : masses) total += mass;
  double before = 0.0;
  std::size_t bucket = 0;
  while (bucket + 1 < BUCKETS && before + masses[bucket] < share * total) before += masses[bucket++];
  while (bucket > 0 && masses[bucket] == 0.0) before -= masses[--bucket];

  std::vector<std::pair<Candidate, double>> inside;
  each([&](float key, std::size_t id, std::size_t i) {
    if (bucket_of(key) != bucket) return;
    inside.push_back({{key, chunk.distances[i], id}, static_cast<double>(chunk.weights[i])});
  });
  std::sort(inside.begin(), inside.end(), [](const auto& a, const auto& b) { return comes_before(a.first, b.first); });
  std::size_t last = 0;
  for (; last + 1 < inside.size(); ++last) {
    before += inside[last].second;
    if (before >= share * total) break;
  }
  return inside[last].first;
}

// The weighted mean of the distances: a token's surprise less the entropy is how far it lies from there.
inline float mean_distance(const Kept& kept) {
  Weights chunk;
  double total = 0.0, moment = 0.0;
  for (std::size_t c = 0; c < kept.row().chunks(); ++c) {
    if (kept.skips(c)) continue;
    kept.fill(c, chunk);
    for (std::size_t i = 0; i < kept.row().length(c); ++i) {
      if (chunk.weights[i] == 0.0f) continue;
      total += static_cast<double>(chunk.weights[i]);
      moment += static_cast<double>(chunk.weights[i]) * static_cast<double>(chunk.distances[i]);
    }
  }
  return static_cast<float>(moment / total);
}

inline void truncate(const DrawParameters& parameters, Kept& kept) {
  const std::size_t top_k = static_cast<std::size_t>(parameters.top_k);
  if (top_k > 0 && top_k < kept.row().size()) {
    kept.keep_until(kept.row().highest(top_k, [&](float logit) { return kept.distance(logit); }).back());
  }
  if (parameters.top_p < 1.0) {
    kept.keep_until(last_of_share(kept, parameters.top_p, [](float distance) { return -distance; }));
  }
  if (parameters.min_p > 0.0) kept.keep_weights_from(static_cast<float>(parameters.min_p));
  if (parameters.typical_p < 1.0) {
    const float center = mean_distance(kept);
    const auto key_of = [=](float distance) { return std::fabs(distance - center); };
    kept.keep_typical(center, last_of_share(kept, parameters.typical_p, key_of));
  }
}

}  // namespace ramify::RAMIFY_ISA
