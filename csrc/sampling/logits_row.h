// One row of logits in chunks, with the maximum of each: what lets a search pass by most of the vocabulary.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "core/simd.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t CHUNK = 512;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

struct Candidate {
  float key;  // the smaller comes first
  float value;
  std::size_t id;
};

inline bool comes_before(const Candidate& a, const Candidate& b) {
  if (a.key != b.key) return a.key < b.key;
  return a.value != b.value ? a.value > b.value : a.id < b.id;
}

inline float sum_of(const float* x, std::size_t length) {
  F32x16 total = F32x16::zero();
  for (std::size_t i = 0; i < length; i += LANES) total = total + F32x16::load_first(x + i, length - i);
  return reduce_add(total);
}

class LogitsRow {
 public:
  LogitsRow(const float* logits, std::size_t size) : logits_(logits), size_(size), maxima_((size + CHUNK - 1) / CHUNK) {
    F32x16 bad = F32x16::zero();
    const F32x16 infinite = F32x16::broadcast(INFINITE), one = F32x16::broadcast(1.0f);
    for (std::size_t chunk = 0; chunk < chunks(); ++chunk) {
      F32x16 highest = F32x16::broadcast(-INFINITE);
      const float* x = logits + chunk * CHUNK;
      const std::size_t length = this->length(chunk), whole = length / LANES * LANES;
      for (std::size_t i = 0; i < whole; i += LANES) {
        const F32x16 value = F32x16::load(x + i);
        highest = max(value, highest);
        bad = where_less(value, infinite, bad, one);  // a NaN is not less either
      }
      maxima_[chunk] = reduce_max(highest);
      for (std::size_t i = whole; i < length; ++i) {
        maxima_[chunk] = std::max(maxima_[chunk], x[i]);
        if (!(x[i] < INFINITE)) bad = one;
      }
    }
    maximum_ = *std::max_element(maxima_.begin(), maxima_.end());
    works_ = reduce_max(bad) == 0.0f && maximum_ > -INFINITE;
  }

  bool works() const { return works_; }  // no NaN, no infinity, something finite
  std::size_t chunks() const { return maxima_.size(); }
  std::size_t size() const { return size_; }
  float maximum() const { return maximum_; }
  float maximum(std::size_t chunk) const { return maxima_[chunk]; }
  const float* chunk(std::size_t chunk) const { return logits_ + chunk * CHUNK; }
  std::size_t length(std::size_t chunk) const { return std::min(CHUNK, size_ - chunk * CHUNK); }

  std::size_t first_of_maximum() const {
    std::size_t chunk = 0;
    while (maxima_[chunk] != maximum_) ++chunk;
    return static_cast<std::size_t>(std::find(this->chunk(chunk), this->chunk(chunk) + length(chunk), maximum_) - logits_);
  }

  // The `count` tokens of the highest values in order, where `value_of` grows with the logit; the highest of the chunks
  // bound them from below. 0 < count <= size.
  template <class ValueOf>
  std::vector<Candidate> highest(std::size_t count, ValueOf value_of) const {
    float least = -INFINITE;
    if (count <= maxima_.size()) {
      std::vector<float> sorted = maxima_;
      std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), std::greater<float>());
      least = value_of(sorted[count - 1]);
    }
    std::vector<Candidate> found;
    for (std::size_t c = 0; c < chunks(); ++c) {
      if (value_of(maxima_[c]) < least) continue;
      for (std::size_t i = 0; i < length(c); ++i) {
        const float value = value_of(chunk(c)[i]);
        if (value >= least) found.push_back({-value, value, c * CHUNK + i});
      }
    }
    std::partial_sort(found.begin(), found.begin() + count, found.end(), comes_before);
    found.resize(count);
    return found;
  }

 private:
  const float* logits_;
  std::size_t size_;
  std::vector<float> maxima_;
  float maximum_;
  bool works_;
};

}  // namespace ramify::RAMIFY_ISA
