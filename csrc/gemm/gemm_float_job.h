// What one product is made of, and the activations laid out for its tiles: blocks of at most MOST_ROWS rows, as even as
// can be, each [inputs][rows of the block].
#pragma once

#include "gemm/gemm_float_tile.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t MULTIPLIES_PER_TASK = 1 << 17;  // less than that is not worth a thread

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

struct Job {
  FloatProduct product;
  std::size_t rows;         // of the weight
  std::size_t columns;
  std::size_t padded;       // inputs with the zeros
  const char* weight;
  const IntMatrix* coded = nullptr;  // null for a float weight
  std::size_t panel_bytes = 0;  // of one panel
  std::size_t blocks = 1;  // of activations
  const void* activations = nullptr;
  const float* sums = nullptr;  // of activations: [block][group][rows of the block]

  std::size_t first_row(std::size_t block) const { return block * product.count / blocks; }
  std::size_t panels() const { return ceil_div(rows, 2 * PANEL) * 2; }
  std::size_t groups() const { return coded == nullptr ? 0 : padded / coded->group; }
};

// Activations of a block in the type of the format, rows side by side; for codes also the sum of each group.
template <class Weight>
void lay_out_block(const Job& job, const float* x, std::size_t rows, typename Weight::Activation* out, float* sums) {
  constexpr std::size_t COUNT = LANES / Weight::INPUTS_PER_ACTIVATION;
  alignas(64) typename Weight::Activation some[MOST_ROWS][COUNT];
  F32x16 group_sums[MOST_ROWS];
  for (std::size_t r = 0; r < rows; ++r) group_sums[r] = F32x16::zero();
  for (std::size_t k = 0; k < job.padded; k += LANES, out += COUNT * rows) {
    for (std::size_t r = 0; r < rows; ++r) {
      const F32x16 value = k < job.columns ? F32x16::load_first(x + r * job.columns + k, job.columns - k) : F32x16::zero();
      Weight::store(value, some[r]);
      if (sums != nullptr) group_sums[r] = group_sums[r] + value;
    }
    for (std::size_t i = 0; i < COUNT; ++i) {
      for (std::size_t r = 0; r < rows; ++r) out[i * rows + r] = some[r][i];
    }
    if (sums == nullptr || (k + LANES) % job.coded->group != 0) continue;
    for (std::size_t r = 0; r < rows; ++r) {
      *sums++ = reduce_add(group_sums[r]);
      group_sums[r] = F32x16::zero();
    }
  }
}

template <class Weight>
void lay_out_activations(Job& job) {
  using Activation = typename Weight::Activation;
  const std::size_t per_row = job.padded / Weight::INPUTS_PER_ACTIVATION;
  const std::size_t groups = job.groups();
  static_assert(sizeof(Activation) == sizeof(float));
  void* memory = scratch((per_row + groups) * job.product.count * sizeof(float));
  auto* activations = static_cast<Activation*>(memory);
  auto* sums = static_cast<float*>(memory) + per_row * job.product.count;
  parallel_for(job.blocks, 1 + MULTIPLIES_PER_TASK / (job.padded * MOST_ROWS), [=, &job](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin; block < end; ++block) {
      const std::size_t first = job.first_row(block);
      lay_out_block<Weight>(job, job.product.x + first * job.columns, job.first_row(block + 1) - first,
                            activations + first * per_row, groups == 0 ? nullptr : sums + first * groups);
    }
  });
  job.activations = activations;
  job.sums = sums;
}

// The part of a tile that its rows do not change: columns from `panel` on, inputs [begin, end).
inline Tile tile_at(const Job& job, std::size_t panel, std::size_t panels, std::size_t begin, std::size_t end) {
  const FloatProduct& product = job.product;
  const std::size_t column = panel * PANEL;
  const std::size_t group = job.groups() == 0 ? 0 : begin / job.coded->group;
  return {
      .activations = nullptr,
      .panel = nullptr,
      .panel_bytes = job.panel_bytes,
      .inputs = end - begin,
      .prefetch = nullptr,
      .prefetch_step = 0,
      .prefetch_panel_bytes = job.panel_bytes,
      .columns = std::min(panels * PANEL, job.rows - std::min(column, job.rows)),
      .begin = nullptr,
      .partial = nullptr,
      .out = product.out + column,
      .stride = job.rows,
      .bias = product.bias == nullptr ? nullptr : product.bias + column,
      .residual = product.residual == nullptr ? nullptr : product.residual + column,
      .sums = nullptr,
      .weight = job.coded,
      .scales = (panel * job.groups() + group) * PANEL,
      .panel_scales = job.groups() * PANEL,
  };
}

// Makes the tile one of the rows of a block.
template <class Weight>
void take_block(const Job& job, std::size_t block, std::size_t begin, Tile& tile) {
  const std::size_t first = job.first_row(block);
  const std::size_t rows = job.first_row(block + 1) - first;
  const std::size_t offset = (first * job.padded + begin * rows) / Weight::INPUTS_PER_ACTIVATION;
  tile.activations = static_cast<const typename Weight::Activation*>(job.activations) + offset;
  tile.out += first * tile.stride;
  if (tile.residual != nullptr) tile.residual += first * tile.stride;
  if (job.groups() != 0) tile.sums = job.sums + first * job.groups() + begin / job.coded->group * rows;
}

}  // namespace ramify::RAMIFY_ISA
