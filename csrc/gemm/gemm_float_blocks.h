// The two ways through a product: one block of rows streams the weight, many blocks share chunks of it in the cache.
#pragma once

#include <type_traits>
#include <utility>

#include "gemm/gemm_float_job.h"

namespace ramify::RAMIFY_ISA {

constexpr std::size_t PANELS_AT_ONCE = 4;                // of one item of a loop
constexpr std::size_t BLOCKS_AT_ONCE = 120 / MOST_ROWS;  // whose activations and sums stay in the second-level cache
constexpr std::size_t CHUNK_BYTES = 16384;               // of one panel: stays in the first-level cache for all blocks

using TileFunction = void (*)(const Tile&);

template <class Weight, int ROWS, int PANELS, bool CODED>
constexpr TileFunction tile_function() {
  if constexpr (CODED) {
    return grouped_tile<Weight, ROWS, PANELS>;
  } else {
    return plain_tile<Weight, ROWS, PANELS>;
  }
}

// Tiles for 1 to MOST_ROWS rows: with some panels side by side, and with the rest of them, which is two.
template <class Weight, bool STREAMS, bool CODED>
struct Tiles {
  struct Entry {
    std::size_t panels;
    TileFunction all, rest;
  };

  static const Entry& of(std::size_t rows) { return find(rows, std::make_integer_sequence<int, MOST_ROWS>{}); }

 private:
  template <int COUNT>
  static constexpr Entry entry() {
    constexpr int PANELS = panels_beside(STREAMS ? COUNT : MOST_ROWS);
    return {PANELS, tile_function<Weight, COUNT, PANELS, CODED>(),
            tile_function<Weight, COUNT, std::min(PANELS, 2), CODED>()};
  }
  template <int... INDEX>
  static const Entry& find(std::size_t rows, std::integer_sequence<int, INDEX...>) {
    static constexpr Entry entries[] = {entry<INDEX + 1>()...};
    return entries[rows - 1];
  }
};

// Bytes that a product of one block of rows is ahead of its use of the weights.
constexpr std::size_t PREFETCH_BYTES = 2048;

// All rows in one block: each panel is read once, from memory, by as many chains as fit.
template <class Weight, bool CODED>
void stream(const Job& job) {
  const auto& tiles = Tiles<Weight, true, CODED>::of(job.product.count);
  const std::size_t work = job.product.count * PANELS_AT_ONCE * PANEL * job.padded;
  parallel_for(ceil_div(job.panels(), PANELS_AT_ONCE), 1 + MULTIPLIES_PER_TASK / work, [&](std::size_t begin, std::size_t end) {
    const std::size_t last = std::min(end * PANELS_AT_ONCE, job.panels());
    for (std::size_t panel = begin * PANELS_AT_ONCE, panels = 0; panel < last; panel += panels) {
      const bool all = last - panel >= tiles.panels;
      panels = all ? tiles.panels : 2;
      Tile tile = tile_at(job, panel, panels, 0, job.padded);
      tile.panel = job.weight + panel * job.panel_bytes;
      tile.prefetch = tile.panel + PREFETCH_BYTES;
      tile.prefetch_step = Weight::BYTES;
      take_block<Weight>(job, 0, 0, tile);
      (all ? tiles.all : tiles.rest)(tile);
    }
  });
}

template <class Weight>
void unpack(const char* panel, std::size_t inputs, float* out) {
  for (std::size_t step = 0; step < inputs / Weight::INPUTS; ++step) {
    Weight::visit(panel, step, [&](int i, F32x16 weight) __attribute__((always_inline)) {
      weight.store(out + (step * Weight::INPUTS + static_cast<std::size_t>(i)) * PANEL);
    });
  }
}

// Many blocks of rows: a chunk of some panels serves all of them from the cache. `Read` is what the tiles read: the weight
// itself, or floats that a chunk is unpacked to.
template <class Weight, class Read, bool CODED>
class Blocks {
 public:
  explicit Blocks(const Job& job) : job_(job) {}

  void run() const {
    const std::size_t row_items = ceil_div(job_.blocks, BLOCKS_AT_ONCE);
    parallel_for(ceil_div(job_.panels(), PANELS_AT_ONCE) * row_items, 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t item = begin; item < end; ++item) {
        const std::size_t rows = item % row_items;
        run_item(item / row_items, rows * job_.blocks / row_items, (rows + 1) * job_.blocks / row_items);
      }
    });
  }

 private:
  static constexpr bool UNPACKS = !std::is_same_v<Weight, Read>;
  static constexpr std::size_t INPUTS = CHUNK_BYTES / Read::BYTES * Read::INPUTS;
  static constexpr std::size_t PANELS = panels_beside(MOST_ROWS);
  static constexpr std::size_t TILE_SUMS = MOST_ROWS * PANELS * PANEL;
  using Sums = float[BLOCKS_AT_ONCE][PANELS_AT_ONCE / PANELS][TILE_SUMS];

  // Panels [panel, panel + PANELS) and inputs [begin, end).
  struct Chunk {
    std::size_t panel, begin, end;
  };

  const char* address(std::size_t panel, std::size_t input) const {
    return job_.weight + panel * job_.panel_bytes + input / Weight::INPUTS * Weight::BYTES;
  }

  void run_item(std::size_t item, std::size_t first_block, std::size_t last_block) const {
    const std::size_t first = item * PANELS_AT_ONCE;
    const std::size_t last = std::min(first + PANELS_AT_ONCE, job_.panels());
    alignas(64) Sums sums;
    for (std::size_t input = 0; input < job_.padded; input += INPUTS) {
      const std::size_t end = std::min(input + INPUTS, job_.padded);
      for (std::size_t panel = first; panel < last; panel += PANELS) {
        const bool turns = panel + PANELS >= last;
        const char* next = turns ? (end < job_.padded ? address(first, end) : nullptr) : address(panel + PANELS, input);
        run_chunk({panel, input, end}, first_block, last_block, next, sums);
      }
    }
  }

  void run_chunk(const Chunk& chunk, std::size_t first_block, std::size_t last_block, const char* next, Sums& sums) const {
    Tile common = tile_at(job_, chunk.panel, PANELS, chunk.begin, chunk.end);
    common.panel = address(chunk.panel, chunk.begin);
    alignas(64) float floats[UNPACKS ? PANELS * INPUTS * PANEL : 1];
    if constexpr (UNPACKS) unpack_chunk(chunk, floats, common);
    const std::size_t bytes = common.inputs / Weight::INPUTS * Weight::BYTES;
    const std::size_t count = last_block - first_block;
    common.prefetch_step = next == nullptr ? 0 : ceil_div(bytes, count * (common.inputs / Read::INPUTS));
    for (std::size_t i = 0; i < count; ++i) {
      Tile tile = common;
      tile.prefetch = next == nullptr ? common.panel : next + bytes * i / count;
      const std::size_t block = first_block + i;
      take_block<Weight>(job_, block, chunk.begin, tile);
      float* partial = sums[i][chunk.panel % PANELS_AT_ONCE / PANELS];
      tile.begin = chunk.begin == 0 ? nullptr : partial;
      tile.partial = chunk.end == job_.padded ? nullptr : partial;
      Tiles<Read, false, CODED>::of(job_.first_row(block + 1) - job_.first_row(block)).all(tile);
    }
  }

  void unpack_chunk(const Chunk& chunk, float* floats, Tile& tile) const {
    for (std::size_t p = 0; p < PANELS; ++p) {
      unpack<Weight>(address(chunk.panel + p, chunk.begin), tile.inputs, floats + p * INPUTS * PANEL);
    }
    tile.panel = reinterpret_cast<const char*>(floats);
    tile.panel_bytes = INPUTS * PANEL * sizeof(float);
  }

  const Job& job_;
};

}  // namespace ramify::RAMIFY_ISA
