// A tile is a few rows times one or two blocks of 16 columns: its integer sums stay in registers for a chunk of inputs,
// its floats stay in the first-level cache. Threads share the columns.
#include "gemm_int.h"

#include <array>
#include <utility>

#include "gather_int.h"
#include "gemm_int_dot.h"
#include "quantise.h"
#include "scratch.h"
#include "thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t PANEL_BLOCKS = 2;
constexpr std::size_t PANEL = PANEL_BLOCKS * LANES;
constexpr std::size_t TILE_COLUMNS = TILE_BLOCKS * LANES;
constexpr std::size_t BYTES_OF_ROWS = std::size_t{1} << 20;  // quantised activations that wait in the cache
constexpr std::size_t BYTES_AT_ONCE = std::size_t{1} << 16;  // of weights, before a thread asks for more
constexpr std::size_t INPUTS_AT_ONCE = std::size_t{1} << 14;  // that a thread quantises before it asks for more

struct Values {
  const void* values;
  bool half;

  F32x16 load(std::size_t index) const {
    return half ? F32x16::load_f16(static_cast<const f16*>(values) + index)
                : F32x16::load(static_cast<const float*>(values) + index);
  }
};

struct Tile {
  const IntMatrix& weight;
  const Groups& groups;
  const QuantisedTile& rows;
  std::size_t block;

  F32x16 scale(std::size_t group, std::size_t b) const {
    return Values{weight.scales, weight.half_scales}.load(((block + b) * groups.groups + group) * LANES);
  }
  F32x16 min(std::size_t group, std::size_t b) const {
    return Values{weight.mins, weight.half_mins}.load(((block + b) * groups.groups + group) * LANES);
  }
};

// Floats of a tile, by row and block.
template <std::size_t R>
struct Floats {
  alignas(64) float at[R][TILE_BLOCKS][LANES];
};

template <std::size_t BITS, std::size_t R>
inline void sum_chunk(const Tile& tile, std::size_t chunk, I32x16 (&sums)[R][TILE_BLOCKS]) {
  const std::size_t size = tile.groups.chunk, begin = chunk * size;
  const std::size_t block_bytes = tile.groups.columns * LANES * BITS / 8;
  const std::size_t offset = BITS == 8 ? begin * LANES : begin / 32 * 32 * LANES / 2;
  const ChunkCodes codes{.weights = tile.weight.codes + tile.block * block_bytes + offset,
                         .block_bytes = block_bytes,
                         .rows = tile.rows.codes + begin * R,
                         .starts = tile.rows.starts + chunk * R};
  if constexpr (BITS == 8) {
    sum_eight_bits(sums, codes, size);
  } else {
    sum_four_bits(sums, codes, size, begin % 32 != 0);
  }
}

// Calls each(row, block) for all sums of a tile.
template <std::size_t R, class Each>
inline void each_sum(Each each) {
#pragma GCC unroll 2
  for (std::size_t b = 0; b < TILE_BLOCKS; ++b) {
#pragma GCC unroll 16
    for (std::size_t r = 0; r < R; ++r) each(r, b);
  }
}

// floats += factors of rows * factors of columns.
template <std::size_t R>
inline void add_minima(Floats<R>& floats, const Tile& tile, std::size_t group) {
  F32x16 mins[TILE_BLOCKS];
  for (std::size_t b = 0; b < TILE_BLOCKS; ++b) mins[b] = tile.min(group, b);
  const float* shifts = tile.rows.shifts + group * R;
  each_sum<R>([&](std::size_t r, std::size_t b) {
    float* at = floats.at[r][b];
    fma(F32x16::broadcast(shifts[r]), mins[b], F32x16::load(at)).store(at);
  });
}

// The chunks that share one of the two scales: `floats` += that scale * the sum of the others' products.
template <std::size_t BITS, std::size_t R, bool WEIGHT_OUTSIDE>
inline void add_group(Floats<R>& floats, Floats<R>& parts, const Tile& tile, std::size_t group) {
  const std::size_t together = tile.groups.chunks_together;
  const bool has_mins = tile.weight.mins != nullptr;
  for (std::size_t i = 0; i < together; ++i) {
    const std::size_t chunk = group * together + i;
    I32x16 sums[R][TILE_BLOCKS];
    sum_chunk<BITS>(tile, chunk, sums);
    const float* row_scales = tile.rows.scales + (WEIGHT_OUTSIDE ? chunk : group) * R;
    F32x16 scales[TILE_BLOCKS];
    for (std::size_t b = 0; b < TILE_BLOCKS; ++b) scales[b] = tile.scale(WEIGHT_OUTSIDE ? group : chunk, b);
    const auto inner = [&](std::size_t r, std::size_t b) { return WEIGHT_OUTSIDE ? F32x16::broadcast(row_scales[r]) : scales[b]; };
    const auto outer = [&](std::size_t r, std::size_t b) { return WEIGHT_OUTSIDE ? scales[b] : F32x16::broadcast(row_scales[r]); };
    const auto finish = [&](std::size_t r, std::size_t b, F32x16 part) {
      float* at = floats.at[r][b];
      fma(part, outer(r, b), F32x16::load(at)).store(at);
    };
    if (together == 1) {
      each_sum<R>([&](std::size_t r, std::size_t b) { finish(r, b, sums[r][b].to_float() * inner(r, b)); });
    } else if (i == 0) {
      each_sum<R>([&](std::size_t r, std::size_t b) { (sums[r][b].to_float() * inner(r, b)).store(parts.at[r][b]); });
    } else if (i + 1 < together || (!WEIGHT_OUTSIDE && has_mins)) {
      each_sum<R>([&](std::size_t r, std::size_t b) {
        float* at = parts.at[r][b];
        fma(sums[r][b].to_float(), inner(r, b), F32x16::load(at)).store(at);
      });
    } else {
      each_sum<R>([&](std::size_t r, std::size_t b) {
        finish(r, b, fma(sums[r][b].to_float(), inner(r, b), F32x16::load(parts.at[r][b])));
      });
    }
    if (!WEIGHT_OUTSIDE && has_mins) {
      add_minima(parts, tile, chunk);
      if (i + 1 == together) {
        each_sum<R>([&](std::size_t r, std::size_t b) { finish(r, b, F32x16::load(parts.at[r][b])); });
      }
    }
  }
  if (WEIGHT_OUTSIDE && has_mins) add_minima(floats, tile, group);
}

struct Output {
  const float* bias;
  const float* residual;
  float* out;
  std::size_t size;  // of a row
};

template <std::size_t R>
void write(const Floats<R>& floats, const Output& output, std::size_t first_row, std::size_t column) {
  for (std::size_t b = 0; b < TILE_BLOCKS; ++b) {
    const std::size_t at = column + b * LANES;
    if (at >= output.size) return;
    const std::size_t n = output.size - at;
    for (std::size_t r = 0; r < R; ++r) {
      const std::size_t place = (first_row + r) * output.size + at;
      F32x16 value = F32x16::load(floats.at[r][b]);
      if (output.bias != nullptr) value = value + F32x16::load_first(output.bias + at, n);
      if (output.residual != nullptr) value = value + F32x16::load_first(output.residual + place, n);
      value.store_first(output.out + place, n);
    }
  }
}

template <std::size_t BITS, std::size_t R, bool WEIGHT_OUTSIDE>
void compute_tile(const Tile& tile, const Output& output, std::size_t first_row) {
  Floats<R> floats{}, parts{};
  const std::size_t groups = tile.groups.chunks / tile.groups.chunks_together;
  for (std::size_t group = 0; group < groups; ++group) add_group<BITS, R, WEIGHT_OUTSIDE>(floats, parts, tile, group);
  write(floats, output, first_row, tile.block * LANES);
}

using ComputeTile = void (*)(const Tile&, const Output&, std::size_t first_row);

// By height less one.
template <std::size_t BITS, bool WEIGHT_OUTSIDE>
constexpr auto TILES_BY_HEIGHT = []<std::size_t... R>(std::index_sequence<R...>) {
  return std::array<ComputeTile, sizeof...(R)>{compute_tile<BITS, R + 1, WEIGHT_OUTSIDE>...};
}(std::make_index_sequence<TILE_ROWS>());

const std::array<ComputeTile, TILE_ROWS>& tiles_for(const IntMatrix& weight, const Groups& groups) {
  if (weight.bits == 8) return groups.weight_outside ? TILES_BY_HEIGHT<8, true> : TILES_BY_HEIGHT<8, false>;
  return groups.weight_outside ? TILES_BY_HEIGHT<4, true> : TILES_BY_HEIGHT<4, false>;
}

std::size_t divided(std::size_t total, std::size_t part) { return (total + part - 1) / part; }

// Rows that are quantised and multiplied before the next are.
void linear_of_some(const IntMatrix& weight, const Groups& groups, const float* x, std::size_t count, const Output& output) {
  const Tiling tiling(count, TILE_ROWS);
  void* memory = scratch(bytes_of_rows(groups, count));
  parallel_for(tiling.tiles, 1 + INPUTS_AT_ONCE / (TILE_ROWS * groups.columns), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      const QuantisedTile tile = tile_of(groups, tiling, t, memory);
      for (std::size_t r = 0; r < tile.rows; ++r) {
        quantise_row(groups, x + (tiling.first(t) + r) * weight.columns, weight.columns, tile, r);
      }
    }
  });
  const auto& compute = tiles_for(weight, groups);
  const std::size_t panels = divided(weight.rows, PANEL), panel_bytes = groups.columns * PANEL * weight.bits / 8;
  const std::size_t grain = std::min(divided(panels, 4 * static_cast<std::size_t>(num_threads())), 1 + BYTES_AT_ONCE / panel_bytes);
  parallel_for(panels, grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin * PANEL_BLOCKS; block < end * PANEL_BLOCKS; block += TILE_BLOCKS) {
      for (std::size_t t = 0; t < tiling.tiles; ++t) {
        const QuantisedTile rows = tile_of(groups, tiling, t, memory);
        compute[rows.rows - 1]({weight, groups, rows, block}, output, tiling.first(t));
      }
    }
  });
}

void linear(const IntMatrix& weight, const float* x, std::size_t count, const float* bias, const float* residual, float* out) {
  const Groups groups = groups_of(weight);
  const std::size_t at_once = std::max(TILE_ROWS, BYTES_OF_ROWS / groups.columns / TILE_ROWS * TILE_ROWS);
  for (std::size_t row = 0; row < count; row += at_once) {
    const std::size_t place = row * weight.rows;
    linear_of_some(weight, groups, x + row * weight.columns, std::min(at_once, count - row),
                   {bias, residual == nullptr ? nullptr : residual + place, out + place, weight.rows});
  }
}

}  // namespace

GemmIntOps gemm_int_ops() { return {.linear = linear, .gather = gather_rows}; }

}  // namespace ramify::RAMIFY_ISA
