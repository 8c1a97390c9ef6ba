// A tile is a few rows times one or two blocks of 16 columns: its integer sums stay in registers for a chunk of inputs,
// its floats stay in the first-level cache. Threads share the columns.
#include "gemm/gemm_int.h"

#include <array>
#include <utility>

#include "gemm/gather_int.h"
#include "gemm/gemm_int_tile.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t PANEL_BLOCKS = 2;
constexpr std::size_t PANEL = PANEL_BLOCKS * LANES;
constexpr std::size_t BYTES_OF_ROWS = std::size_t{1} << 20;  // quantised activations that wait in the cache
constexpr std::size_t BYTES_AT_ONCE = std::size_t{1} << 16;  // of weights, before a thread asks for more
constexpr std::size_t INPUTS_AT_ONCE = std::size_t{1} << 14;  // that a thread quantises before it asks for more

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

using ComputeTile = void (*)(const Tile&, TileMemory&);

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

const Tiles& tiles_for(std::size_t bits, const Groups& groups) {
  if (groups.integer_scales) {
    if (bits == 4) return TILES<4, Grouping::INTEGER_SCALES, HALVES_INPUTS>;
    return bits == 6 ? TILES<6, Grouping::INTEGER_SCALES, HALVES_INPUTS> : TILES<8, Grouping::INTEGER_SCALES, HALVES_INPUTS>;
  }
  return bits == 8 ? tiles_for<8>(groups) : tiles_for<4>(groups);
}

std::size_t divided(std::size_t total, std::size_t part) { return (total + part - 1) / part; }

constexpr std::size_t TILES_THAT_UNPACK = 2;  // fewer tiles unpack codes of 6 bits on the way, each for itself

// Codes of 6 bits as bytes, which many tiles of rows then read from the cache. Until this thread's next call.
const std::uint8_t* unpacked(const std::uint8_t* codes, std::size_t inputs) {
  constexpr std::size_t AT_ONCE = 16;
  thread_local Scratch memory;
  auto* const bytes = static_cast<std::uint8_t*>(memory.get(inputs * LANES));
  for (std::size_t i = 0; i < inputs; i += AT_ONCE) {
    const std::uint8_t* const from = codes + i * LANES * 6 / 8;
    for (std::size_t step = 0; step < 3; ++step) prefetch_weights(from + step * STEP_BYTES);
    unpack_six_bits(from, bytes + i * LANES);
  }
  return bytes;
}

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
  const bool unpacks = weight.bits == 6 && tiling.tiles > TILES_THAT_UNPACK;
  const Tiles& compute = tiles_for(unpacks ? 8 : weight.bits, groups);
  const std::size_t block_bytes = groups.columns * LANES * weight.bits / 8;
  const std::size_t panels = divided(weight.rows, PANEL), panel_bytes = PANEL_BLOCKS * block_bytes;
  const std::size_t grain = std::min(divided(panels, 4 * static_cast<std::size_t>(num_threads())), 1 + BYTES_AT_ONCE / panel_bytes);
  parallel_for(panels, grain, [&](std::size_t begin, std::size_t end) {
    TileMemory tile_memory;
    for (std::size_t block = begin * PANEL_BLOCKS; block < end * PANEL_BLOCKS; block += TILE_BLOCKS) {
      const std::uint8_t* const stored = weight.codes + block * block_bytes;
      const std::uint8_t* const codes = unpacks ? unpacked(stored, groups.columns * TILE_BLOCKS) : stored;
      const std::size_t next_block = unpacks ? groups.columns * LANES : block_bytes;
      for (std::size_t t = 0; t < tiling.tiles; ++t) {
        const QuantisedTile rows = tile_of(groups, tiling, t, memory);
        compute[rows.rows - 1]({weight, groups, rows, block, codes, next_block}, tile_memory);
        write(tile_memory.floats, rows.rows, output, tiling.first(t), block * LANES);
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
