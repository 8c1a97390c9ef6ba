// The inner products: ROWS rows with PANELS panels of sixteen columns, the sums in registers.
#pragma once

#include "gemm/gemm_float_weights.h"

namespace ramify::RAMIFY_ISA {

// Rows of a tile, and sixteen-column sums that fit into the registers beside weights and activations.
#if defined(RAMIFY_LANES_512)
constexpr int MOST_ROWS = 12;
constexpr int MOST_SUMS = 24;
#elif defined(RAMIFY_LANES_256)
constexpr int MOST_ROWS = 6;
constexpr int MOST_SUMS = 6;
#else
constexpr int MOST_ROWS = 2;
constexpr int MOST_SUMS = 2;
#endif

// Panels side by side for some rows: enough chains to hide the latency of a multiply-add, and no more than fit.
constexpr int panels_beside(int rows) {
  const int fit = MOST_SUMS / rows;
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

// What a tile computes: some inputs of some rows and columns.
struct Tile {
  const void* activations;  // [inputs][rows] of the format's type
  const char* panel;        // first panel, at the first of the inputs
  std::size_t panel_bytes;  // from one panel to the next
  std::size_t inputs;
  const char* prefetch;     // weights to ask for on the way, `prefetch_step` bytes a step, in every panel
  std::size_t prefetch_step;
  std::size_t prefetch_panel_bytes;
  std::size_t columns;      // to write, at most the width of the panels
  const float* begin;       // sums so far, [row][panel][16], or null
  float* partial;           // where the sums go while inputs are left, likewise, else null
  float* out;               // [rows], `stride` apart
  std::size_t stride;
  const float* bias;        // or null
  const float* residual;    // like `out`, or null
  // For codes, at the first group of the inputs:
  const float* sums;          // [group][rows] of the activations
  const IntMatrix* weight;
  std::size_t scales;         // index of the first scale
  std::size_t panel_scales;   // scales from one panel to the next
};

// One step of panels whose weights are all at hand: an activation is loaded once for all of them.
template <class Weight, int ROWS, int PANELS>
RAMIFY_INLINE void step_together(const typename Weight::Activation* x, const char* panel, std::size_t panel_bytes,
                                 std::size_t step, F32x16 (&sums)[ROWS][PANELS]) {
  typename Weight::Vector weights[PANELS];
#pragma GCC unroll 4
  for (int p = 0; p < PANELS; ++p) {
    Weight::visit(panel + static_cast<std::size_t>(p) * panel_bytes, step,
                  [&](int, auto weight) __attribute__((always_inline)) { weights[p] = weight; });
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; ++p) sums[r][p] = Weight::multiply(x[r], weights[p], sums[r][p]);
  }
}

// One step, a panel after the other: what a panel needs besides its sums is soon free again.
template <class Weight, int ROWS, int PANELS>
RAMIFY_INLINE void step_in_turn(const typename Weight::Activation* x, const char* panel, std::size_t panel_bytes,
                                std::size_t step, F32x16 (&sums)[ROWS][PANELS]) {
#pragma GCC unroll 4
  for (int p = 0; p < PANELS; ++p) {
    Weight::visit(panel + static_cast<std::size_t>(p) * panel_bytes, step,
                  [&](int i, auto weight) __attribute__((always_inline)) {
#pragma GCC unroll 12
                    for (int r = 0; r < ROWS; ++r) sums[r][p] = Weight::multiply(x[i * ROWS + r], weight, sums[r][p]);
                  });
    if (PANELS > 1) asm volatile("" : : : "memory");  // the next panel loads activations anew: they would not all fit
  }
}

template <class Weight, int ROWS, int PANELS>
RAMIFY_INLINE void multiply_steps(const Tile& tile, const typename Weight::Activation* x, std::size_t begin, std::size_t end,
                                  F32x16 (&sums)[ROWS][PANELS]) {
  constexpr std::size_t PARTS = Weight::INPUTS / Weight::INPUTS_PER_ACTIVATION;
  const char* panel = tile.panel;
  const std::size_t panel_bytes = tile.panel_bytes;
  const std::size_t prefetch_step = tile.prefetch_step;
  const std::size_t prefetch_panel_bytes = tile.prefetch_panel_bytes;
  const char* prefetch = tile.prefetch + begin * prefetch_step;
  for (std::size_t step = begin; step < end; ++step, x += PARTS * ROWS, prefetch += prefetch_step) {
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; ++p) __builtin_prefetch(prefetch + static_cast<std::size_t>(p) * prefetch_panel_bytes);
    if constexpr (PARTS == 1) {
      step_together<Weight>(x, panel, panel_bytes, step, sums);
    } else {
      step_in_turn<Weight>(x, panel, panel_bytes, step, sums);
    }
  }
}

template <int ROWS, int PANELS>
RAMIFY_INLINE F32x16 start(const Tile& tile, int row, int panel) {
  return tile.begin == nullptr ? F32x16::zero() : F32x16::load(tile.begin + (row * PANELS + panel) * static_cast<int>(PANEL));
}

template <int ROWS, int PANELS>
RAMIFY_INLINE void finish(const Tile& tile, int row, int panel, F32x16 sum) {
  if (tile.partial != nullptr) return sum.store(tile.partial + (row * PANELS + panel) * static_cast<int>(PANEL));
  const std::size_t column = static_cast<std::size_t>(panel) * PANEL;
  if (column >= tile.columns) return;
  const std::size_t valid = tile.columns - column;
  const std::size_t at = static_cast<std::size_t>(row) * tile.stride + column;
  if (tile.bias != nullptr) sum = sum + F32x16::load_first(tile.bias + column, valid);
  if (tile.residual != nullptr) sum = sum + F32x16::load_first(tile.residual + at, valid);
  sum.store_first(tile.out + at, valid);
}

template <class Weight, int ROWS, int PANELS>
void plain_tile(const Tile& tile) {
  F32x16 sums[ROWS][PANELS];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; ++p) sums[r][p] = start<ROWS, PANELS>(tile, r, p);
  }
  multiply_steps<Weight, ROWS, PANELS>(tile, static_cast<const typename Weight::Activation*>(tile.activations), 0,
                                       tile.inputs / Weight::INPUTS, sums);
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; ++p) finish<ROWS, PANELS>(tile, r, p, sums[r][p]);
  }
}

inline F32x16 load_scales(const void* scales, bool half, std::size_t at) {
  return half ? F32x16::load_f16(static_cast<const f16*>(scales) + at) : F32x16::load(static_cast<const float*>(scales) + at);
}

// One group's sums join the totals: scale * sum + (min * sum of activations + total).
template <int ROWS, int PANELS>
RAMIFY_INLINE void add_group(const Tile& tile, std::size_t group, const F32x16 (&sums)[ROWS][PANELS], float* totals) {
  const IntMatrix& weight = *tile.weight;
#pragma GCC unroll 4
  for (int p = 0; p < PANELS; ++p) {
    const std::size_t at = tile.scales + static_cast<std::size_t>(p) * tile.panel_scales + group * PANEL;
    const F32x16 scale = load_scales(weight.scales, weight.half_scales, at);
    const bool shifted = weight.mins != nullptr || weight.bits == 4;
    const F32x16 min = weight.mins != nullptr ? load_scales(weight.mins, weight.half_mins, at) : scale * F32x16::broadcast(-8.0f);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      float* at_total = totals + (r * PANELS + p) * static_cast<int>(PANEL);
      F32x16 total = F32x16::load(at_total);
      if (shifted) total = fma(min, F32x16::broadcast(tile.sums[group * ROWS + static_cast<std::size_t>(r)]), total);
      fma(scale, sums[r][p], total).store(at_total);
    }
  }
}

template <class Weight, int ROWS, int PANELS>
void grouped_tile(const Tile& tile) {
  alignas(64) float totals[ROWS * PANELS * static_cast<int>(PANEL)];
  for (int r = 0; r < ROWS; ++r) {
    for (int p = 0; p < PANELS; ++p) {
      start<ROWS, PANELS>(tile, r, p).store(totals + (r * PANELS + p) * static_cast<int>(PANEL));
    }
  }
  const auto* x = static_cast<const typename Weight::Activation*>(tile.activations);
  const std::size_t size = tile.weight->group;
  const std::size_t steps = size / Weight::INPUTS;
  for (std::size_t group = 0; group * size < tile.inputs; ++group) {
    F32x16 sums[ROWS][PANELS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < PANELS; ++p) sums[r][p] = F32x16::zero();
    }
    multiply_steps<Weight, ROWS, PANELS>(tile, x + group * size * ROWS, group * steps, (group + 1) * steps, sums);
    add_group<ROWS, PANELS>(tile, group, sums, totals);
    asm volatile("" : : "r"(totals) : "memory");  // the totals stay in memory: the registers are for the sums
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int p = 0; p < PANELS; ++p) {
      finish<ROWS, PANELS>(tile, r, p, F32x16::load(totals + (r * PANELS + p) * static_cast<int>(PANEL)));
    }
  }
}

}  // namespace ramify::RAMIFY_ISA
