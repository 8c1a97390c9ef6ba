// The inner loops of attention: products of a few rows with a range of keys or values, the partial softmax, the merge.
//
// Lanes are keys in the first product and dimensions in the second; each lane is one chain of fused multiply-adds in
// order of dimensions, or of keys. How many rows and lanes are held in registers at once changes nothing of that.
#pragma once

#include <array>
#include <limits>
#include <utility>

#include "attention/attention_plan.h"
#include "core/simd.h"

namespace ramify::RAMIFY_ISA {

// Rows that are multiplied at once: accumulators, loaded lanes and a broadcast have to fit the registers.
#if defined(RAMIFY_LANES_512)
constexpr std::size_t MAX_ROWS = 12;
constexpr std::size_t lanes_at_once(std::size_t rows) { return rows <= 4 ? 4 : 2; }
#elif defined(RAMIFY_LANES_256)
constexpr std::size_t MAX_ROWS = 6;
constexpr std::size_t lanes_at_once(std::size_t rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
#else
constexpr std::size_t MAX_ROWS = 4;
constexpr std::size_t lanes_at_once(std::size_t) { return 1; }
#endif

constexpr float LOWEST = std::numeric_limits<float>::lowest();  // the maximum of no scores

inline F32x16 widen(const float* p) { return F32x16::load(p); }
inline F32x16 widen(const bf16* p) { return F32x16::load_bf16(p); }
inline F32x16 widen(const std::int8_t* p) { return F32x16::load_i8(p); }

// Keys and values of one range, wherever they lie.
template <class Element>
struct Source {
  std::array<const Element*, RANGE / LANES> keys;  // of every 16 keys: one row a dimension,
  std::size_t key_step;                            // so far apart
  std::array<const Element*, RANGE / 8> values;    // of every block: one row a key, so far apart as there are padded dimensions
  std::size_t value_step;
  std::size_t block_size;
};

// Sums of a row: what the softmax needs of the ranges seen so far. Outputs are not divided by `sum` yet.
struct State {
  float* maximum;  // [rows]
  float* sum;      // [rows]
  float* output;   // [rows][width]
};

// How a partial result joins a state: state * keep + partial * add.
struct Join {
  float* keep;  // [rows]
  float* add;   // [rows]; negative: the row saw nothing of the range, and stays as it is
};

// `x` in each lane, 0 where a < b.
inline F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 x) {
#if defined(RAMIFY_LANES_256)  // the compiler makes more of a choice from zeros
  return {_mm256_and_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_NLT_UQ), x.lo), _mm256_and_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_NLT_UQ), x.hi)};
#else
  return where_less(a, b, F32x16::zero(), x);
#endif
}

// 2^x for x <= 0 within 2 units in the last place; 0 below -125, NaN for NaN. Same steps on all lanes and variants.
inline F32x16 exp2(F32x16 x) {
  const F32x16 lowest = F32x16::broadcast(-125.0f);       // what comes out below is thrown away
  const F32x16 shifter = F32x16::broadcast(12582912.0f);  // 1.5 * 2^23: rounds to an integer, kept in the lowest bits
  const F32x16 biased = x + shifter;
  const F32x16 r = x - (biased - shifter);
  F32x16 p = F32x16::broadcast(1.3264726908e-3f);
  p = fma(p, r, F32x16::broadcast(9.6715126604e-3f));
  p = fma(p, r, F32x16::broadcast(5.5507337442e-2f));
  p = fma(p, r, F32x16::broadcast(2.4022242085e-1f));
  p = fma(p, r, F32x16::broadcast(6.9314697760e-1f));
  p = fma(p, r, F32x16::broadcast(1.0f));
  return zero_where_less(x, lowest, scale_by_exponent(p, biased));
}

// The loops over rows and lanes are unrolled first of all: only then does the compiler keep the sums in registers.

// scores[r][16 g ...] = query[r] . keys, for N groups of 16 keys from `group` on. query: [R][dim]; scores: [R][RANGE].
template <class Element, std::size_t R, std::size_t N>
inline void multiply_keys(const float* query, std::size_t dim, const Source<Element>& source, std::size_t group, float* scores) {
  F32x16 sums[R][N];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (std::size_t n = 0; n < N; ++n) sums[r][n] = F32x16::zero();
  }
  const Element* keys[N];
#pragma GCC unroll 16
  for (std::size_t n = 0; n < N; ++n) keys[n] = source.keys[group + n];
  for (std::size_t d = 0; d < dim; ++d) {
    F32x16 key[N];
#pragma GCC unroll 16
    for (std::size_t n = 0; n < N; ++n) key[n] = widen(keys[n] + d * source.key_step);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < R; ++r) {
      const F32x16 element = F32x16::broadcast(query[r * dim + d]);
#pragma GCC unroll 16
      for (std::size_t n = 0; n < N; ++n) sums[r][n] = fma(element, key[n], sums[r][n]);
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (std::size_t n = 0; n < N; ++n) sums[r][n].store(scores + r * RANGE + (group + n) * LANES);
  }
}

// output[r] = output[r] * keep[r] + (weights[r] . values) * add[r], for N groups of 16 dimensions from `column` on.
template <class Element, std::size_t R, std::size_t N>
inline void multiply_values(const float* weights, std::size_t begin, std::size_t end, const Source<Element>& source,
                            std::size_t column, const Join& join, float* output, std::size_t width) {
  F32x16 sums[R][N];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (std::size_t n = 0; n < N; ++n) sums[r][n] = F32x16::zero();
  }
  for (std::size_t key = begin; key < end;) {
    const std::size_t block = key / source.block_size, block_end = std::min(end, (block + 1) * source.block_size);
    const Element* values = source.values[block] + (key - block * source.block_size) * source.value_step + column;
    for (; key < block_end; ++key, values += source.value_step) {
      F32x16 value[N];
#pragma GCC unroll 16
      for (std::size_t n = 0; n < N; ++n) value[n] = widen(values + n * LANES);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < R; ++r) {
        const F32x16 weight = F32x16::broadcast(weights[r * RANGE + key]);
#pragma GCC unroll 16
        for (std::size_t n = 0; n < N; ++n) sums[r][n] = fma(weight, value[n], sums[r][n]);
      }
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < R; ++r) {
    if (join.add[r] < 0.0f) continue;
    const F32x16 keep = F32x16::broadcast(join.keep[r]), add = F32x16::broadcast(join.add[r]);
#pragma GCC unroll 16
    for (std::size_t n = 0; n < N; ++n) {
      float* to = output + r * width + column + n * LANES;
      fma(F32x16::load(to), keep, sums[r][n] * add).store(to);
    }
  }
}

// All keys of a range up to `groups` groups of 16, for R rows.
template <class Element, std::size_t R>
void score_rows(const float* query, std::size_t dim, const Source<Element>& source, std::size_t groups, float* scores) {
  constexpr std::size_t N = lanes_at_once(R);
  std::size_t group = 0;
  for (; group + N <= groups; group += N) multiply_keys<Element, R, N>(query, dim, source, group, scores);
  for (; group < groups; ++group) multiply_keys<Element, R, 1>(query, dim, source, group, scores);
}

// All dimensions of the values of the keys [begin, end) of a range, for R rows.
template <class Element, std::size_t R>
void sum_rows(const float* weights, std::size_t begin, std::size_t end, const Source<Element>& source, const Join& join,
              float* output, std::size_t width) {
  constexpr std::size_t N = lanes_at_once(R);
  std::size_t column = 0;
  for (; column + N * LANES <= width; column += N * LANES) {
    multiply_values<Element, R, N>(weights, begin, end, source, column, join, output, width);
  }
  for (; column < width; column += LANES) {
    multiply_values<Element, R, 1>(weights, begin, end, source, column, join, output, width);
  }
}

template <class Element>
struct RowKernels {
  using Score = void (*)(const float*, std::size_t, const Source<Element>&, std::size_t, float*);
  using Sum = void (*)(const float*, std::size_t, std::size_t, const Source<Element>&, const Join&, float*, std::size_t);

  template <std::size_t... I>
  static constexpr std::array<Score, MAX_ROWS> scores(std::index_sequence<I...>) {
    return {score_rows<Element, I + 1>...};
  }
  template <std::size_t... I>
  static constexpr std::array<Sum, MAX_ROWS> sums(std::index_sequence<I...>) {
    return {sum_rows<Element, I + 1>...};
  }
  static constexpr auto score = scores(std::make_index_sequence<MAX_ROWS>());
  static constexpr auto sum = sums(std::make_index_sequence<MAX_ROWS>());
};

// How many of `left` rows come next: few rows leave the arithmetic units idle, so the last ones are shared out evenly.
inline std::size_t next_rows(std::size_t left) {
  if (left <= MAX_ROWS) return left;
  return left < 2 * MAX_ROWS ? (left + 1) / 2 : MAX_ROWS;
}

// Joins what was seen behind `state` to its maxima and sums; `join` gets the factors of the outputs, padded to 16 rows.
inline void join_sums(const State& state, const float* maximum, const float* sum, std::size_t rows, const Join& join) {
  for (std::size_t r = 0; r < rows; r += LANES) {
    const std::size_t n = rows - r;
    const F32x16 before = F32x16::load_first(state.maximum + r, n), behind = F32x16::load_first(maximum + r, n);
    const F32x16 largest = max(before, behind);
    const F32x16 keep = exp2(before - largest), add = exp2(behind - largest);
    fma(F32x16::load_first(state.sum + r, n), keep, F32x16::load_first(sum + r, n) * add).store_first(state.sum + r, n);
    largest.store_first(state.maximum + r, n);
    keep.store(join.keep + r);
    add.store(join.add + r);
  }
}

}  // namespace ramify::RAMIFY_ISA
