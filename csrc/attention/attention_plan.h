// Which rows of a batch are computed together. The same for every instruction set; made once a step for all layers.
//
// A row's keys are cut into ranges of 64 positions and sections of 4 ranges. Each range is a partial softmax; ranges are
// merged in order within their section, sections in order within the row. The plan decides only which rows are multiplied
// with a range together, and which sections one thread folds, of which the number of threads has a say: never how a row is
// summed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ramify {

constexpr std::size_t RANGE = 64;  // key positions of a partial softmax: a multiple of every block size
constexpr std::size_t SECTION = 4 * RANGE;

// Spans of consecutive rows, each of one sequence, that cover rows 0 to T - 1.
struct AttentionBatch {
  std::size_t spans;
  const std::int64_t* query_start;     // [spans + 1] first row
  const std::int64_t* first_position;  // [spans] of the first row's token
  const std::int64_t* table_start;     // [spans + 1] in `blocks`
  const std::int32_t* blocks;          // block tables, one behind the other
  // Draft trees: [T + 1] in `path`, or null. A row with a path sees the positions before its span's first one and, from there
  // on, one position for each entry: the span's row that stands there; the last is the row itself.
  const std::int64_t* path_start;
  const std::int32_t* path;
};

struct AttentionShape {
  std::size_t block_size;
  std::size_t group;  // query heads a KV head
  std::size_t kv_heads;
};

// Consecutive rows of one sequence; what is never split.
struct AttentionTile {
  std::uint32_t row;
  std::uint32_t queries;
  std::uint32_t position;    // of the first row
  std::uint32_t blocks;      // its block table in the plan's
  std::uint32_t num_blocks;  // up to its last row
  std::uint32_t sections;
  std::uint32_t first;       // how many sections its first item folds
  std::uint32_t partial;     // its first row among the partial results of its wave: of the first item, then of each section
  std::uint32_t tail;        // slots of the positions from `tail_start` on, in the plan's, if it is a row of a tree
  std::uint32_t tail_start;  // otherwise beyond all positions

  std::uint32_t end() const { return position + queries; }
  std::uint32_t parts() const { return sections - first + 1; }
  std::uint32_t part(std::uint32_t section) const { return section == 0 ? 0 : section - first + 1; }
};

// Tiles that start a section with the same blocks, to be computed by one thread; from section 0 on it may be several.
struct AttentionItem {
  std::uint32_t member_begin, member_end;
  std::uint32_t section_begin, section_end;
  std::uint64_t cost;
};

// What is computed before the partial results are merged and their memory is used again.
struct AttentionWave {
  std::vector<AttentionItem> items;
  std::vector<std::uint32_t> split;  // tiles whose parts are merged behind
  std::size_t partial_rows = 0;      // of one KV head
};

struct AttentionPlan {
  AttentionShape shape;
  std::size_t rows = 0;        // of the batch
  std::size_t max_blocks = 0;  // of a block table
  std::int32_t largest_block = 0;
  std::vector<AttentionTile> tiles;
  std::vector<std::int32_t> blocks;
  std::vector<std::uint32_t> tail_slots;
  std::vector<std::uint32_t> members;
  std::vector<AttentionWave> waves;

  // Throws std::invalid_argument for a batch that does not fit together.
  AttentionPlan(const AttentionBatch& batch, const AttentionShape& shape);

  // Whether two tiles read the same keys and values for the positions of a range.
  bool same_range(const AttentionTile& a, const AttentionTile& b, std::size_t range) const;

 private:
  void add_span(const AttentionBatch& batch, std::size_t span);
  void add_tree(const AttentionBatch& batch, std::size_t span);
  void add_tile(AttentionTile tile, bool whole);
  void plan_split(const std::vector<std::uint32_t>& tiles);
  bool same_section(const AttentionTile& a, const AttentionTile& b, std::size_t section) const;
  void lengthen(AttentionWave& wave, std::size_t from);
  std::uint32_t shared_sections(const AttentionItem& item) const;
  void place_parts(AttentionWave& wave, std::uint32_t tile);
  void plan_section(AttentionWave& wave, std::size_t section, std::vector<std::uint64_t>& order);
  void add_item(AttentionWave& wave, std::size_t section, std::size_t member_begin);
  std::uint64_t cost(const AttentionTile& tile, std::size_t section) const;

  std::vector<std::uint32_t> whole_, split_;
};

// Memory of the calling thread, aligned to 64 bytes, zeroed when it grows; valid until the thread's next call.
float* thread_scratch(std::size_t floats);
// Memory that all threads of one call of attention use together, likewise.
float* shared_scratch(std::size_t floats);

}  // namespace ramify
