#include "attention/attention_plan.h"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>

#include "core/scratch.h"
#include "core/thread_pool.h"

namespace ramify {
namespace {

constexpr std::size_t ROWS_AT_ONCE = 256;   // of a KV head: their queries and results stay in the second-level cache
constexpr std::size_t WHOLE_ROWS = 64;      // from so many rows on, reading the keys again costs next to nothing
constexpr std::size_t FEW_ITEMS = 16;       // fewer are split, so that threads get like shares
constexpr std::size_t PARTIAL_ROWS = 32768; // rows times sections of a wave: 8 MB a KV head of 64 dimensions

std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Whether threads that take the dearest item first, one after the other, end at about the same time; also if one of them
// begins late, for which there have to be a few for each.
bool shares_are_alike(std::vector<std::uint64_t> costs, std::size_t threads) {
  if (threads > 1 && costs.size() < 4 * threads) return false;
  std::sort(costs.begin(), costs.end(), std::greater<>());
  std::vector<std::uint64_t> shares(threads);
  for (const std::uint64_t cost : costs) *std::min_element(shares.begin(), shares.end()) += cost;
  const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
  return *most - *least <= *most / 8;
}

[[noreturn]] void refuse(const std::string& what, std::size_t span) {
  throw std::invalid_argument("attention: span " + std::to_string(span) + " " + what);
}

}  // namespace

AttentionPlan::AttentionPlan(const AttentionBatch& batch, const AttentionShape& of) : shape(of) {
  if (batch.spans == 0) return;
  rows = static_cast<std::size_t>(batch.query_start[batch.spans]);
  blocks.assign(batch.blocks, batch.blocks + batch.table_start[batch.spans]);
  for (const std::int32_t block : blocks) {
    if (block < 0) throw std::invalid_argument("attention: block " + std::to_string(block) + " of a table is negative");
    largest_block = std::max(largest_block, block);
  }
  for (std::size_t span = 0; span < batch.spans; ++span) add_span(batch, span);

  waves.emplace_back();
  std::size_t row_sections = 0;
  for (const std::uint32_t tile : whole_) row_sections += tiles[tile].queries * shape.group * tiles[tile].sections;
  if (whole_.size() * shape.kv_heads < FEW_ITEMS && row_sections <= PARTIAL_ROWS) {
    split_.insert(split_.end(), whole_.begin(), whole_.end());
    whole_.clear();
  }
  for (const std::uint32_t tile : whole_) {
    const auto at = static_cast<std::uint32_t>(members.size());
    members.push_back(tile);
    waves.front().items.push_back({at, at + 1, 0, tiles[tile].sections, 0});
    for (std::size_t section = 0; section < tiles[tile].sections; ++section) {
      waves.front().items.back().cost += cost(tiles[tile], section);
    }
  }
  plan_split(split_);
  for (AttentionWave& wave : waves) {
    std::sort(wave.items.begin(), wave.items.end(), [](const AttentionItem& a, const AttentionItem& b) { return a.cost > b.cost; });
  }
}

void AttentionPlan::add_span(const AttentionBatch& batch, std::size_t span) {
  const std::int64_t first = batch.query_start[span], count = batch.query_start[span + 1] - first;
  const std::int64_t position = batch.first_position[span], table = batch.table_start[span];
  const std::int64_t num_blocks = batch.table_start[span + 1] - table;
  if (first < 0 || count < 1) refuse("has no rows", span);
  if (position < 0) refuse("begins at position " + std::to_string(position), span);
  const auto size = static_cast<std::int64_t>(shape.block_size);
  if (num_blocks * size < position + count) {
    refuse("has " + std::to_string(num_blocks) + " blocks, too few for " + std::to_string(position + count) + " positions", span);
  }
  max_blocks = std::max(max_blocks, static_cast<std::size_t>(divide_up(position + count, size)));
  if (batch.path_start != nullptr && batch.path_start[first + 1] > batch.path_start[first]) return add_tree(batch, span);

  const bool whole = static_cast<std::size_t>(count) * shape.group >= WHOLE_ROWS;
  const std::size_t most = std::max<std::size_t>(1, ROWS_AT_ONCE / shape.group);
  const std::size_t pieces = divide_up(count, most);
  for (std::size_t piece = 0; piece < pieces; ++piece) {
    const std::size_t begin = count * piece / pieces, end = count * (piece + 1) / pieces;
    AttentionTile tile{};
    tile.row = static_cast<std::uint32_t>(first + begin);
    tile.queries = static_cast<std::uint32_t>(end - begin);
    tile.position = static_cast<std::uint32_t>(position + begin);
    tile.blocks = static_cast<std::uint32_t>(table);
    tile.tail_start = UINT32_MAX;
    add_tile(tile, whole);
  }
}

void AttentionPlan::add_tree(const AttentionBatch& batch, std::size_t span) {
  const std::int64_t first = batch.query_start[span], end = batch.query_start[span + 1];
  const std::int64_t position = batch.first_position[span], table = batch.table_start[span];
  const auto size = static_cast<std::int64_t>(shape.block_size);
  for (std::int64_t row = first; row < end; ++row) {
    const std::int64_t begin = batch.path_start[row], length = batch.path_start[row + 1] - begin;
    if (length < 1 || batch.path[begin + length - 1] != row - first) refuse("has a row whose path does not end with itself", span);
    AttentionTile tile{};
    tile.row = static_cast<std::uint32_t>(row);
    tile.queries = 1;
    tile.position = static_cast<std::uint32_t>(position + length - 1);
    tile.blocks = static_cast<std::uint32_t>(table);
    tile.tail = static_cast<std::uint32_t>(tail_slots.size());
    tile.tail_start = static_cast<std::uint32_t>(position);
    for (std::int64_t i = begin; i < begin + length; ++i) {
      const std::int64_t step = batch.path[i];
      if (step < 0 || step >= end - first) refuse("has a path through row " + std::to_string(step) + ", which it lacks", span);
      const std::int64_t place = position + step;
      tail_slots.push_back(static_cast<std::uint32_t>(blocks[table + place / size] * size + place % size));
    }
    add_tile(tile, false);
  }
}

void AttentionPlan::add_tile(AttentionTile tile, bool whole) {
  tile.num_blocks = static_cast<std::uint32_t>(divide_up(tile.end(), shape.block_size));
  tile.sections = static_cast<std::uint32_t>(divide_up(tile.end(), SECTION));
  tile.first = 1;
  (whole ? whole_ : split_).push_back(static_cast<std::uint32_t>(tiles.size()));
  tiles.push_back(tile);
}

bool AttentionPlan::same_range(const AttentionTile& a, const AttentionTile& b, std::size_t range) const {
  const std::size_t per_range = RANGE / shape.block_size, first = range * per_range;
  if (std::min(a.tail_start, b.tail_start) < (range + 1) * RANGE) return false;
  if (a.num_blocks <= first || b.num_blocks <= first) return false;
  const std::size_t count = std::min(per_range, a.num_blocks - first);
  if (count != std::min(per_range, b.num_blocks - first)) return false;
  return std::equal(&blocks[a.blocks + first], &blocks[a.blocks + first] + count, &blocks[b.blocks + first]);
}

std::uint64_t AttentionPlan::cost(const AttentionTile& tile, std::size_t section) const {
  const std::size_t ranges = divide_up(std::min<std::size_t>(tile.end(), (section + 1) * SECTION) - section * SECTION, RANGE);
  return ranges * (4 + tile.queries * shape.group);
}

// Whether two tiles read the same keys and values all through a section.
bool AttentionPlan::same_section(const AttentionTile& a, const AttentionTile& b, std::size_t section) const {
  if (a.sections <= section || b.sections <= section) return false;
  for (std::size_t range = section * SECTION / RANGE; range < (section + 1) * SECTION / RANGE; ++range) {
    const std::size_t first = range * RANGE / shape.block_size;
    if (a.num_blocks <= first && b.num_blocks <= first) return true;
    if (!same_range(a, b, range)) return false;
  }
  return true;
}

// How many sections from the first one on the tiles of an item have in common.
std::uint32_t AttentionPlan::shared_sections(const AttentionItem& item) const {
  const AttentionTile& tile = tiles[members[item.member_begin]];
  const auto shared = [&](std::size_t section) {
    return std::all_of(&members[item.member_begin] + 1, &members[item.member_begin] + (item.member_end - item.member_begin),
                       [&](std::uint32_t other) { return same_section(tile, tiles[other], section); });
  };
  std::uint32_t end = 1;
  while (end < tile.sections && shared(end)) ++end;
  return end;
}

// Lets the first items of tiles go on as long as their tiles read the same: their queries are prepared once, and what they
// have of a section is joined while it is in the cache. Only where the threads still get like shares.
void AttentionPlan::lengthen(AttentionWave& wave, std::size_t from) {
  std::vector<AttentionItem> longer(wave.items.begin() + from, wave.items.end());
  std::vector<std::uint64_t> costs;
  for (AttentionItem& item : longer) {
    item.section_end = shared_sections(item);
    for (std::size_t section = 1; section < item.section_end; ++section) {
      for (std::size_t i = item.member_begin; i < item.member_end; ++i) item.cost += cost(tiles[members[i]], section);
    }
    costs.insert(costs.end(), shape.kv_heads, item.cost);
  }
  if (!shares_are_alike(costs, static_cast<std::size_t>(num_threads()))) return;
  std::copy(longer.begin(), longer.end(), wave.items.begin() + from);
  for (const AttentionItem& item : longer) {
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) tiles[members[i]].first = item.section_end;
  }
}

// Tiles whose sections are items of their own, in waves of bounded memory.
void AttentionPlan::plan_split(const std::vector<std::uint32_t>& chosen) {
  std::vector<std::uint64_t> order;
  for (std::size_t begin = 0; begin < chosen.size();) {
    if (waves.back().partial_rows != 0) waves.emplace_back();
    AttentionWave& wave = waves.back();
    std::size_t end = begin, sections = 0, row_sections = 0;
    for (; end < chosen.size() && (end == begin || row_sections < PARTIAL_ROWS); ++end) {
      const AttentionTile& tile = tiles[chosen[end]];
      sections = std::max<std::size_t>(sections, tile.sections);
      if (tile.sections > 1) row_sections += tile.queries * shape.group * tile.sections;
    }
    const std::size_t from = wave.items.size();
    for (std::size_t section = 0; section < sections; ++section) {
      order.clear();
      for (std::size_t i = begin; i < end; ++i) {
        const AttentionTile& tile = tiles[chosen[i]];
        if (tile.sections <= section || (section != 0 && section < tile.first)) continue;
        const auto block = static_cast<std::uint64_t>(blocks[tile.blocks + section * SECTION / shape.block_size]);
        order.push_back(block << 32 | chosen[i]);
      }
      plan_section(wave, section, order);
      if (section == 0) lengthen(wave, from);
    }
    for (std::size_t i = begin; i < end; ++i) place_parts(wave, chosen[i]);
    begin = end;
  }
}

// Where the parts of a tile lie that is not finished by its first item.
void AttentionPlan::place_parts(AttentionWave& wave, std::uint32_t index) {
  AttentionTile& tile = tiles[index];
  if (tile.first == tile.sections) return;
  tile.partial = static_cast<std::uint32_t>(wave.partial_rows);
  wave.partial_rows += tile.queries * shape.group * tile.parts();
  wave.split.push_back(index);
}

// Groups the tiles of a section that start with the same range. `order`: first block and tile of each.
void AttentionPlan::plan_section(AttentionWave& wave, std::size_t section, std::vector<std::uint64_t>& order) {
  std::sort(order.begin(), order.end());
  const std::size_t first = section * SECTION / shape.block_size, most = SECTION / shape.block_size;
  const auto table = [&](std::uint64_t entry) {
    const AttentionTile& tile = tiles[static_cast<std::uint32_t>(entry)];
    const std::int32_t* begin = &blocks[tile.blocks] + first;
    return std::pair{begin, begin + std::min<std::size_t>(most, tile.num_blocks - first)};
  };
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && order[end] >> 32 == order[begin] >> 32) ++end;
    if (end - begin > 1) {  // like tables side by side: they share further ranges of the section
      std::sort(order.begin() + begin, order.begin() + end, [&](std::uint64_t a, std::uint64_t b) {
        const auto [a_begin, a_end] = table(a);
        const auto [b_begin, b_end] = table(b);
        const auto order_of_tables = std::lexicographical_compare_three_way(a_begin, a_end, b_begin, b_end);
        return order_of_tables != 0 ? order_of_tables < 0 : a < b;
      });
    }
    std::size_t at = members.size(), held = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const auto index = static_cast<std::uint32_t>(order[i]);
      const std::size_t more = tiles[index].queries * shape.group;
      const bool joins = members.size() > at && held + more <= ROWS_AT_ONCE &&
                         same_range(tiles[members.back()], tiles[index], section * SECTION / RANGE);
      if (members.size() > at && !joins) {
        add_item(wave, section, at);
        at = members.size();
        held = 0;
      }
      members.push_back(index);
      held += more;
    }
    add_item(wave, section, at);
    begin = end;
  }
}

void AttentionPlan::add_item(AttentionWave& wave, std::size_t section, std::size_t member_begin) {
  const auto at = static_cast<std::uint32_t>(section);
  AttentionItem item{static_cast<std::uint32_t>(member_begin), static_cast<std::uint32_t>(members.size()), at, at + 1, 0};
  for (std::size_t i = member_begin; i < members.size(); ++i) item.cost += cost(tiles[members[i]], section);
  wave.items.push_back(item);
}

float* thread_scratch(std::size_t floats) {
  thread_local Scratch scratch;
  return static_cast<float*>(scratch.get(floats * sizeof(float)));
}

float* shared_scratch(std::size_t floats) {
  thread_local Scratch scratch;  // of the thread that calls attention
  return static_cast<float*>(scratch.get(floats * sizeof(float)));
}

}  // namespace ramify
