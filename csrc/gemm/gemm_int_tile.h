// A tile's products: integer sums of a chunk of inputs at a time, and what its scales make of them.
#pragma once

#include "gemm/gemm_int_dot.h"
#include "gemm/quantise.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t TILE_COLUMNS = TILE_BLOCKS * LANES;

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
  const std::uint8_t* codes;  // of the block
  std::size_t block_bytes;    // from there to the next block

  F32x16 scale(std::size_t group, std::size_t b) const {
    return Values{weight.scales, weight.half_scales}.load(((block + b) * groups.groups + group) * LANES);
  }
  F32x16 min(std::size_t group, std::size_t b) const {
    return Values{weight.mins, weight.half_mins}.load(((block + b) * groups.groups + group) * LANES);
  }
};

// Of a tile, [R, TILE_BLOCKS, 16] each: not arrays of the function that uses them, for which compilers would look for
// registers. Parts are zeros before and after each group; totals stay zeros where a group has one part.
struct TileMemory {
  alignas(64) float floats[TILE_ROWS * TILE_COLUMNS];
  alignas(64) float parts[TILE_ROWS * TILE_COLUMNS] = {};
  alignas(64) std::int32_t totals[TILE_ROWS * TILE_COLUMNS] = {};
};

using Floats = float*;

template <class Value>
RAMIFY_INLINE inline Value* at(Value* values, std::size_t r, std::size_t b) {
  return values + (r * TILE_BLOCKS + b) * LANES;
}

RAMIFY_INLINE inline void add_product(Floats floats, std::size_t r, std::size_t b, F32x16 x, F32x16 y) {
  fma(x, y, F32x16::load(at(floats, r, b))).store(at(floats, r, b));
}

// What a kernel is compiled for: bits of a code, rows of a tile, which scale several chunks share (or that the weight's
// are integers), inputs of a chunk (0 for more than 32).
enum class Grouping { SAME, WEIGHT_OUTSIDE, ROWS_OUTSIDE, INTEGER_SCALES };

template <std::size_t BITS, std::size_t R, std::size_t CHUNK>
RAMIFY_INLINE inline void sum_chunk(const Tile& tile, std::size_t chunk, Sums<R>& sums) {
  const std::size_t size = CHUNK == 0 ? tile.groups.chunk : CHUNK, begin = chunk * size;
  const std::size_t offset = BITS == 8 ? begin * LANES : begin / HALVES_INPUTS * HALVES_INPUTS * LANES / 2;
  const ChunkCodes codes{.weights = tile.codes + offset,
                         .block_bytes = tile.block_bytes,
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

// The same place, unknown to compilers: so they do not hold the values of a tile in registers over chunks, which the
// integer sums need.
template <class Value>
RAMIFY_INLINE inline Value* forgotten(Value* values) {
#if defined(__GNUC__)
  asm volatile("" : "+r"(values));
#endif
  return values;
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

// The same for a group of several chunks, whose parts are summed first.
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

// totals = or += the scaled sums of a part of an activation group.
template <std::size_t BITS, std::size_t R>
RAMIFY_INLINE inline void add_to_totals(std::int32_t* totals, bool first, const Sums<R>& sums, const Scales (&scales)[TILE_BLOCKS]) {
  unrolled<R>([&](auto r) RAMIFY_INLINE {
    unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE {
      std::int32_t* const total = at(totals, r, b);
      scaled<BITS>(first ? I32x16::zero() : I32x16::load(total), sums[r][b], scales[b]).store(total);
    });
  });
}

// floats += totals and the scaled sums of the last part, scaled. FIRST: floats are not read, but taken for zeros.
template <std::size_t BITS, std::size_t R, bool FIRST>
RAMIFY_INLINE inline void add_last_part(TileMemory& memory, const Tile& tile, std::size_t group, const Sums<R>& sums,
                                        const Scales (&scales)[TILE_BLOCKS]) {
  const float* const row_scales = tile.rows.scales + group * R;
  unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE {
    const std::size_t place = ((tile.block + b) * tile.groups.activation_groups + group) * LANES;
    const F32x16 factors = F32x16::load_bf16(tile.weight.factors + place);
    unrolled<R>([&](auto r) RAMIFY_INLINE {
      const I32x16 total = scaled<BITS>(I32x16::load(at(memory.totals, r, b)), sums[r][b], scales[b]);
      float* const to = at(memory.floats, r, b);
      const F32x16 before = FIRST ? F32x16::zero() : F32x16::load(to);
      fma(total.to_float() * F32x16::broadcast(row_scales[r]), factors, before).store(to);
    });
  });
}

// floats = (of the first) or += an activation group of a weight with integer scales, whose parts are summed as integers.
// 8 bits are 6 that were unpacked.
template <std::size_t BITS, std::size_t R>
RAMIFY_INLINE inline void add_scaled_group(TileMemory& memory, const Tile& tile, std::size_t group) {
  const std::size_t parts = tile.groups.chunks_together, groups = tile.groups.groups;
  const auto* const block_scales = static_cast<const std::int8_t*>(tile.weight.scales) + tile.block * groups * LANES;
  for (std::size_t i = 0; i < parts; ++i) {
    const std::size_t part = group * parts + i, begin = part * inputs_scaled_together(BITS);
    const ChunkCodes codes{.weights = tile.codes,
                           .block_bytes = tile.block_bytes,
                           .rows = tile.rows.codes + begin * R,
                           .starts = tile.rows.starts + part * R};
    Sums<R> sums;
    sum_part<BITS, R>(sums, codes, part);
    Scales scales[TILE_BLOCKS];
    unrolled<TILE_BLOCKS>([&](auto b) RAMIFY_INLINE {
      scales[b] = load_scales<BITS>(block_scales + (b * groups + begin / SCALED_INPUTS) * LANES);
    });
    if (i + 1 < parts) {
      add_to_totals<BITS, R>(forgotten(memory.totals), i == 0, sums, scales);
    } else if (group == 0) {
      add_last_part<BITS, R, true>(memory, tile, group, sums, scales);
    } else {
      add_last_part<BITS, R, false>(memory, tile, group, sums, scales);
    }
  }
}

// To memory.floats.
template <std::size_t BITS, std::size_t R, Grouping GROUPING, std::size_t CHUNK>
void compute_tile(const Tile& tile, TileMemory& memory) {
  const std::size_t groups = GROUPING == Grouping::INTEGER_SCALES ? tile.groups.activation_groups : tile.groups.chunks / tile.groups.chunks_together;
  if constexpr (GROUPING != Grouping::INTEGER_SCALES) std::fill_n(memory.floats, R * TILE_COLUMNS, 0.0f);
  for (std::size_t group = 0; group < groups; ++group) {
    if constexpr (GROUPING == Grouping::INTEGER_SCALES) {
      add_scaled_group<BITS, R>(memory, tile, group);
    } else if constexpr (GROUPING == Grouping::SAME) {
      add_group<BITS, R, CHUNK>(forgotten(memory.floats), tile, group);
    } else {
      add_group<BITS, R, GROUPING, CHUNK>(forgotten(memory.floats), memory.parts, tile, group);
    }
  }
}

}  // namespace ramify::RAMIFY_ISA
