// A tile is a few rows times one or two blocks of 16 columns: its integer sums stay in registers for a chunk of inputs,
// its floats stay in the first-level cache. Threads share the columns.
#include "gemm/gemm_int.h"

#include <array>
#include <utility>

#include "gemm/gather_int.h"
#include "gemm/gemm_int_dot.h"
#include "gemm/quantise.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

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

// Floats of a tile, [R, TILE_BLOCKS, 16]: not an array of the function that uses them, for which compilers would look
// for registers.
using Floats = float*;

RAMIFY_INLINE inline float* at(Floats floats, std::size_t r, std::size_t b) { return floats + (r * TILE_BLOCKS + b) * LANES; }

RAMIFY_INLINE inline void add_product(Floats floats, std::size_t r, std::size_t b, F32x16 x, F32x16 y) {
  fma(x, y, F32x16::load(at(floats, r, b))).store(at(floats, r, b));
}

// What a kernel is compiled for: bits of a code, rows of a tile, which scale several chunks share, inputs of a chunk (0
// for more than 32).
enum class Grouping { SAME, WEIGHT_OUTSIDE, ROWS_OUTSIDE };

template <std::size_t BITS, std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_chunk(const Tile& tile, std::size_t chunk, Sums<R>& sums) {
  const std::size_t size = CHUNK == 0 ? tile.groups.chunk : CHUNK, begin = chunk * size;
  const std::size_t block_bytes = tile.groups.columns * LANES * BITS / 8;
  const std::size_t offset = BITS == 8 ? begin * LANES : begin / HALVES_INPUTS * HALVES_INPUTS * LANES / 2;
  const ChunkCodes codes{.weights = tile.weight.codes + tile.block * block_bytes + offset,
                         .block_bytes = block_bytes,
                         .rows = tile.rows.codes + begin * R * tile.groups.code_bytes,
                         .starts = tile.rows.starts + chunk * R};
  if constexpr (BITS == 8) {
    sum_eight_bits<R, CHUNK>(sums, codes, size);
  } else if constexpr (CHUNK == HALVES_INPUTS / 2) {
    sum_half<R>(sums, codes, chunk % 2 != 0);
  } else {
    sum_four_bits<R, CHUNK>(sums, codes, size);
  }
}

// The same place, unknown to compilers: so they do not hold the floats of a tile in registers over chunks, which the
// integer sums need.
RAMIFY_INLINE inline Floats forgotten(Floats floats) {
#if defined(__GNUC__)
  asm volatile("" : "+r"(floats));
#endif
  return floats;
}

struct Columns {
  F32x16 of[TILE_BLOCKS];
};

RAMIFY_INLINE inline Columns scales_of(const Tile& tile, std::size_t group) {
  Columns columns;
  unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE { columns.of[b] = tile.scale(group, b); });
  return columns;
}

// Calls each(row, block, the row's value in all lanes).
template <std::size_t R, class Each>
RAMIFY_INLINE inline void each_sum(const float* row_values, Each each) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    const F32x16 value = F32x16::broadcast(row_values[r]);
    unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE { each(r, b, value); });
  });
}

// floats += what minima are multiplied with * minima.
template <std::size_t R>
void add_minima(Floats floats, const Tile& tile, std::size_t group) {
  Columns mins;
  unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE { mins.of[b] = tile.min(group, b); });
  each_sum<R>(tile.rows.shifts + group * R,
              [&](auto r, auto b, F32x16 shift) RAMIFY_INLINE { add_product(floats, r, b, shift, mins.of[b]); });
}

// floats += the scaled sums of a chunk that is a group of both.
template <std::size_t BITS, std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void add_group(Floats floats, const Tile& tile, std::size_t group) {
  Sums<R> sums;
  sum_chunk<BITS, R, CHUNK>(tile, group, sums);
  const Columns scales = scales_of(tile, group);
  each_sum<R>(tile.rows.scales + group * R, [&](auto r, auto b, F32x16 scale) RAMIFY_INLINE {
    add_product(floats, r, b, sums[r][b].to_float() * scale, scales.of[b]);
  });
  if (tile.weight.mins != nullptr) add_minima<R>(floats, tile, group);
}

// The same for a group of several chunks, whose parts are summed first. `parts` is zeros before and after.
template <std::size_t BITS, std::size_t R, Grouping GROUPING, std::size_t CHUNK>
RAMIFY_INLINE inline void add_group(Floats floats, Floats parts, const Tile& tile, std::size_t group) {
  constexpr bool WEIGHT_OUTSIDE = GROUPING == Grouping::WEIGHT_OUTSIDE;
  const std::size_t together = tile.groups.chunks_together;
  const bool has_mins = tile.weight.mins != nullptr;
  for (std::size_t chunk = group * together; chunk < (group + 1) * together; ++chunk) {
    parts = forgotten(parts);
    Sums<R> sums;
    sum_chunk<BITS, R, CHUNK>(tile, chunk, sums);
    if constexpr (WEIGHT_OUTSIDE) {
      each_sum<R>(tile.rows.scales + chunk * R, [&](auto r, auto b, F32x16 scale) RAMIFY_INLINE {
        add_product(parts, r, b, sums[r][b].to_float(), scale);
      });
    } else {
      const Columns scales = scales_of(tile, chunk);
      each_sum<R>(tile.rows.scales + group * R, [&](auto r, auto b, F32x16) RAMIFY_INLINE {
        add_product(parts, r, b, sums[r][b].to_float(), scales.of[b]);
      });
      if (has_mins) add_minima<R>(parts, tile, chunk);
    }
  }
  const Columns scales = WEIGHT_OUTSIDE ? scales_of(tile, group) : Columns{};
  each_sum<R>(tile.rows.scales + group * R, [&](auto r, auto b, F32x16 scale) RAMIFY_INLINE {
    add_product(floats, r, b, F32x16::load(at(parts, r, b)), WEIGHT_OUTSIDE ? scales.of[b] : scale);
    F32x16::zero().store(at(parts, r, b));
  });
  if (WEIGHT_OUTSIDE && has_mins) add_minima<R>(floats, tile, group);
}

struct Output {
  const float* bias;
  const float* residual;
  float* out;
  std::size_t size;  // of a row
};

void write(Floats floats, std::size_t rows, const Output& output, std::size_t first_row, std::size_t column) {
  for (std::size_t b = 0; b < TILE_BLOCKS && column + b * LANES < output.size; ++b) {
    const std::size_t begin = column + b * LANES, n = output.size - begin;
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t place = (first_row + r) * output.size + begin;
      F32x16 value = F32x16::load(at(floats, r, b));
      if (output.bias != nullptr) value = value + F32x16::load_first(output.bias + begin, n);
      if (output.residual != nullptr) value = value + F32x16::load_first(output.residual + place, n);
      value.store_first(output.out + place, n);
    }
  }
}

// Adds to `floats`; both are zeros before, `parts` also after.
template <std::size_t BITS, std::size_t R, Grouping GROUPING, std::size_t CHUNK>
void compute_tile(const Tile& tile, Floats floats, [[maybe_unused]] Floats parts) {
  const std::size_t groups = tile.groups.chunks / tile.groups.chunks_together;
  for (std::size_t group = 0; group < groups; ++group) {
    floats = forgotten(floats);
    if constexpr (GROUPING == Grouping::SAME) {
      add_group<BITS, R, CHUNK>(floats, tile, group);
    } else {
      add_group<BITS, R, GROUPING, CHUNK>(floats, parts, tile, group);
    }
  }
}

using ComputeTile = void (*)(const Tile&, Floats floats, Floats parts);

// By height less one.
using Tiles = std::array<ComputeTile, TILE_ROWS>;

template <std::size_t BITS, Grouping GROUPING, std::size_t CHUNK>
constexpr Tiles TILES = []<std::size_t... R>(std::index_sequence<R...>) {
  return Tiles{compute_tile<BITS, R + 1, GROUPING, CHUNK>...};
}(std::make_index_sequence<TILE_ROWS>());

template <std::size_t BITS, Grouping GROUPING>
const Tiles& tiles_of(std::size_t chunk) {
  if constexpr (GROUPING == Grouping::ROWS_OUTSIDE) {
    if (chunk == 16) return TILES<BITS, GROUPING, 16>;
  }
  return chunk == 32 ? TILES<BITS, GROUPING, 32> : TILES<BITS, GROUPING, 0>;
}

template <std::size_t BITS>
const Tiles& tiles_for(const Groups& groups) {
  if (groups.chunks_together == 1) return tiles_of<BITS, Grouping::SAME>(groups.chunk);
  if (groups.weight_outside) return tiles_of<BITS, Grouping::WEIGHT_OUTSIDE>(groups.chunk);
  return tiles_of<BITS, Grouping::ROWS_OUTSIDE>(groups.chunk);
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
  const auto& compute = weight.bits == 8 ? tiles_for<8>(groups) : tiles_for<4>(groups);
  const std::size_t panels = divided(weight.rows, PANEL), panel_bytes = groups.columns * PANEL * weight.bits / 8;
  const std::size_t grain = std::min(divided(panels, 4 * static_cast<std::size_t>(num_threads())), 1 + BYTES_AT_ONCE / panel_bytes);
  parallel_for(panels, grain, [&](std::size_t begin, std::size_t end) {
    alignas(64) float floats[TILE_ROWS * TILE_COLUMNS], parts[TILE_ROWS * TILE_COLUMNS] = {};
    for (std::size_t block = begin * PANEL_BLOCKS; block < end * PANEL_BLOCKS; block += TILE_BLOCKS) {
      for (std::size_t t = 0; t < tiling.tiles; ++t) {
        const QuantisedTile rows = tile_of(groups, tiling, t, memory);
        std::fill_n(floats, rows.rows * TILE_COLUMNS, 0.0f);
        compute[rows.rows - 1]({weight, groups, rows, block}, floats, parts);
        write(floats, rows.rows, output, tiling.first(t), block * LANES);
      }
    }
  });
}

void linear(const IntMatrix& weight, const float* x, std::size_t count, const float* bias, const float* residual, float* out) {
  const Groups groups = groups_of(weight);
  const std::size_t at_once = std::max(TILE_ROWS, BYTES_OF_ROWS / (groups.columns * groups.code_bytes) / TILE_ROWS * TILE_ROWS);
  for (std::size_t row = 0; row < count; row += at_once) {
    const std::size_t place = row * weight.rows;
    linear_of_some(weight, groups, x + row * weight.columns, std::min(at_once, count - row),
                   {bias, residual == nullptr ? nullptr : residual + place, out + place, weight.rows});
  }
}

}  // namespace

GemmIntOps gemm_int_ops() { return {.linear = linear, .gather = gather_rows}; }

}  // namespace ramify::RAMIFY_ISA
