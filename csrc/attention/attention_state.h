// Sums of rows in memory: where they lie, how they begin, how later ones join.
#pragma once

#include <cstring>

#include "attention/attention_kernels.h"

namespace ramify::RAMIFY_ISA {

inline std::size_t round_up(std::size_t n) { return (n + LANES - 1) / LANES * LANES; }

// Takes pieces of a stretch of memory, each aligned to 64 bytes.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(std::size_t floats) {
    float* piece = next_;
    next_ += round_up(floats);
    return piece;
  }
  State take_state(std::size_t rows, std::size_t width) { return {take(rows), take(rows), take(rows * width)}; }

 private:
  float* next_;
};

inline std::size_t state_floats(std::size_t rows, std::size_t width) { return 2 * round_up(rows) + rows * width; }

inline void clear(const State& state, std::size_t rows, std::size_t width) {
  std::fill(state.maximum, state.maximum + round_up(rows), LOWEST);
  std::memset(state.sum, 0, round_up(rows) * sizeof(float));
  std::memset(state.output, 0, rows * width * sizeof(float));
}

inline State from_row(const State& state, std::size_t row, std::size_t width) {
  return {state.maximum + row, state.sum + row, state.output + row * width};
}

// Joins the state of a later section to that of the sections before it.
inline void join_states(const State& state, const State& later, std::size_t rows, std::size_t width, const Join& join) {
  join_sums(state, later.maximum, later.sum, rows, join);
  for (std::size_t r = 0; r < rows; ++r) {
    const F32x16 keep = F32x16::broadcast(join.keep[r]), add = F32x16::broadcast(join.add[r]);
    for (std::size_t at = r * width; at < (r + 1) * width; at += LANES) {
      fma(F32x16::load(state.output + at), keep, F32x16::load(later.output + at) * add).store(state.output + at);
    }
  }
}

}  // namespace ramify::RAMIFY_ISA
