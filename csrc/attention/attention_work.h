// One item of a plan, for one KV head: its ranges in order, each for the rows that read the same keys together.
#pragma once

#include <algorithm>

#include "attention/attention_scores.h"
#include "attention/attention_softmax.h"
#include "attention/attention_source.h"
#include "attention/attention_state.h"

namespace ramify::RAMIFY_ISA {

constexpr float LOG2_E = 1.44269504f;
constexpr std::size_t IN_PLACE_ROWS = 2 * MAX_ROWS;  // more rows pay for a float32 copy of the range

// One row of an item: one query head of one token.
struct Row {
  std::uint32_t begin, end;  // positions it sees
  std::size_t place;         // token * heads + head
};

// The memory that one item works in, and the item itself, of one KV head.
template <class Element>
class Work {
 public:
  Work(const AttentionPlan& plan, const AttentionCall& call, const ScoreBuffers& buffers, std::size_t head)
      : plan_(plan),
        call_(call),
        buffers_(buffers),
        head_(head),
        dim_(call.layer.head_dim),
        width_(round_up(dim_)),
        group_(plan.shape.group),
        heads_(group_ * plan.shape.kv_heads),
        reader_(plan, call.layer, head, width_) {}

  void run(const AttentionItem& item, const State& partials) {
    prepare(item);
    const bool joins = item.section_end - item.section_begin > 1;
    for (std::size_t section = item.section_begin; section < item.section_end; ++section) {
      clear(state_, rows_, width_);
      fold_section(item, section);
      if (joins) join_states(total_, state_, rows_, width_, join_);
    }
    const State& folded = joins ? total_ : state_;
    std::size_t row = 0;
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) {
      const AttentionTile& tile = plan_.tiles[plan_.members[i]];
      const std::size_t count = tile.queries * group_;
      if (item.section_begin == 0 && item.section_end == tile.sections) {
        finish(folded, row, count);
      } else {
        keep(folded, row, count, from_row(partials, tile.partial + tile.part(item.section_begin) * count, width_));
      }
      row += count;
    }
  }

  // Joins the parts of a tile that were computed apart. The first one is what the sections before the next gave together.
  void merge(const AttentionTile& tile, const State& partials) {
    rows_ = tile.queries * group_;
    Carver carver(thread_scratch(state_floats(rows_, width_) + 2 * round_up(rows_) + row_floats()));
    take_rows(carver);
    total_ = carver.take_state(rows_, width_);
    join_ = {carver.take(rows_), carver.take(rows_)};
    add_rows(tile, 0);
    const auto part = [&](std::size_t i) { return from_row(partials, tile.partial + i * rows_, width_); };
    if (tile.first > 1) {
      keep(part(0), 0, rows_, total_);
    } else {
      clear(total_, rows_, width_);
      join_states(total_, part(0), rows_, width_, join_);
    }
    for (std::size_t i = 1; i < tile.parts(); ++i) join_states(total_, part(i), rows_, width_, join_);
    finish(total_, 0, rows_);
  }

 private:
  std::size_t row_floats() const { return round_up(rows_ * sizeof(Row) / sizeof(float)); }

  void take_rows(Carver& carver) { row_ = reinterpret_cast<Row*>(carver.take(row_floats())); }

  void prepare(const AttentionItem& item) {
    rows_ = 0;
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) rows_ += plan_.tiles[plan_.members[i]].queries * group_;
    Carver carver(thread_scratch(row_floats() + round_up(rows_ * dim_) + 2 * state_floats(rows_, width_) + 2 * round_up(rows_) +
                                 PANEL * RANGE + 2 * PANEL + RANGE * (dim_ + width_ + 2)));
    take_rows(carver);
    query_ = carver.take(rows_ * dim_);
    state_ = carver.take_state(rows_, width_);
    total_ = carver.take_state(rows_, width_);
    join_ = {carver.take(rows_), carver.take(rows_)};
    scores_ = carver.take(PANEL * RANGE);
    partial_ = {carver.take(PANEL), carver.take(PANEL), nullptr};
    copies_ = {carver.take(RANGE * dim_), carver.take(RANGE * width_), carver.take(RANGE), carver.take(RANGE)};
    std::size_t row = 0;
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) {
      const AttentionTile& tile = plan_.tiles[plan_.members[i]];
      add_rows(tile, row);
      scale_queries(tile, row);
      row += tile.queries * group_;
    }
    if (item.section_end - item.section_begin > 1) clear(total_, rows_, width_);
  }

  void add_rows(const AttentionTile& tile, std::size_t row) {
    for (std::uint32_t q = 0; q < tile.queries; ++q) {
      const std::uint32_t end = tile.position + q + 1;
      const std::uint32_t begin = call_.window != 0 && end > call_.window ? end - static_cast<std::uint32_t>(call_.window) : 0;
      for (std::size_t g = 0; g < group_; ++g) row_[row++] = {begin, end, (tile.row + q) * heads_ + head_ * group_ + g};
    }
  }

  void scale_queries(const AttentionTile& tile, std::size_t row) {
    const F32x16 factor = F32x16::broadcast(call_.scale * LOG2_E);
    for (std::size_t q = 0; q < tile.queries; ++q) {
      const float* from = call_.query + (tile.row + q) * call_.query_stride + head_ * group_ * dim_;
      float* to = query_ + (row + q * group_) * dim_;
      const std::size_t size = group_ * dim_, whole = size / LANES * LANES;
      for (std::size_t at = 0; at < whole; at += LANES) (F32x16::load(from + at) * factor).store(to + at);
      if (whole < size) (F32x16::load_first(from + whole, size - whole) * factor).store_first(to + whole, size - whole);
    }
  }

  // All ranges of a section, each for the members that read the same keys together.
  void fold_section(const AttentionItem& item, std::size_t section) {
    const std::size_t ranges = SECTION / RANGE;
    for (std::size_t range = section * ranges; range < (section + 1) * ranges; ++range) {
      std::size_t row = 0;
      for (std::size_t i = item.member_begin; i < item.member_end;) {
        const AttentionTile& tile = plan_.tiles[plan_.members[i]];
        std::size_t count = tile.queries * group_;
        std::uint32_t end = tile.end();
        for (++i; i < item.member_end; ++i) {
          const AttentionTile& next = plan_.tiles[plan_.members[i]];
          if (!plan_.same_range(tile, next, range)) break;
          count += next.queries * group_;
          end = std::max(end, next.end());
        }
        if (end > range * RANGE) fold_range(tile, range, std::min<std::size_t>(RANGE, end - range * RANGE), row, row + count);
        row += count;
      }
    }
  }

  bool sees(const Row& row, std::size_t range) const { return row.begin < (range + 1) * RANGE && row.end > range * RANGE; }

  // The keys of a range before `end` for the rows [begin_row, end_row), of which `tile` is one.
  void fold_range(const AttentionTile& tile, std::size_t range, std::size_t end, std::size_t begin_row, std::size_t end_row) {
    while (begin_row < end_row && !sees(row_[begin_row], range)) ++begin_row;
    while (begin_row < end_row && !sees(row_[end_row - 1], range)) --end_row;
    if (begin_row == end_row) return;
    if (call_.layer.type == KVType::int8) reader_.copy_scales(tile, range, end, copies_);
    const bool in_place = reader_.lies_well(tile, range) && (sizeof(Element) == sizeof(float) || end_row - begin_row <= IN_PLACE_ROWS);
    reader_.prefetch(tile, range + 1);
    if (in_place) return fold_panels(reader_.in_place(tile, range, end), range, begin_row, end_row);
    fold_panels(reader_.copied(tile, range, end, copies_), range, begin_row, end_row);
  }

  template <class Stored>
  void fold_panels(const Source<Stored>& source, std::size_t range, std::size_t begin_row, std::size_t end_row) {
    for (std::size_t row = begin_row; row < end_row; row += PANEL) {
      fold_panel(source, range, row, std::min(PANEL, end_row - row));
    }
  }

  // Which keys of a range these rows see, all together.
  RangeView view(std::size_t range, std::size_t first, std::size_t count) const {
    const bool scaled = call_.layer.type == KVType::int8;
    RangeView view{RANGE, 0, true, scaled ? copies_.key_scales : nullptr, scaled ? copies_.value_scales : nullptr};
    std::uint32_t last_begin = 0, first_end = UINT32_MAX;
    for (std::size_t r = first; r < first + count; ++r) {
      last_begin = std::max(last_begin, row_[r].begin);
      first_end = std::min(first_end, row_[r].end);
    }
    view.whole = last_begin <= range * RANGE && first_end >= (range + 1) * RANGE;
    for (std::size_t r = first; r < first + (view.whole ? 1 : count); ++r) {
      if (!sees(row_[r], range)) continue;
      view.begin = std::min(view.begin, begin_key(row_[r], range));
      view.end = std::max(view.end, end_key(row_[r], range));
    }
    return view;
  }

  static std::size_t begin_key(const Row& row, std::size_t range) { return row.begin > range * RANGE ? row.begin - range * RANGE : 0; }
  static std::size_t end_key(const Row& row, std::size_t range) { return std::min<std::size_t>(RANGE, row.end - range * RANGE); }

  template <class Stored>
  void fold_panel(const Source<Stored>& source, std::size_t range, std::size_t first, std::size_t count) {
    const RangeView seen = view(range, first, count);
    if (seen.end == 0) return;
    const std::size_t groups = (seen.end + LANES - 1) / LANES;
    for (std::size_t done = 0, n = 0; done < count; done += n) {
      n = next_rows(count - done);
      RowKernels<Stored>::score[n - 1](query_ + (first + done) * dim_, dim_, source, groups, scores_ + done * RANGE);
    }
    weigh(range, seen, groups, first, count);
    const State state = from_row(state_, first, width_);
    join_sums(state, partial_.maximum, partial_.sum, count, join_);
    for (std::size_t r = 0; r < count && !seen.whole; ++r) {
      if (!sees(row_[first + r], range)) join_.add[r] = -1.0f;
    }
    for (std::size_t done = 0, n = 0; done < count; done += n) {
      n = next_rows(count - done);
      RowKernels<Stored>::sum[n - 1](scores_ + done * RANGE, seen.begin, seen.end, source, {join_.keep + done, join_.add + done},
                                     state.output + done * width_, width_);
    }
  }

  // Scores to weights, of the rows of a panel. Groups of 16 keys that none of them sees are left out: they would add zeros.
  void weigh(std::size_t range, const RangeView& seen, std::size_t groups, std::size_t first, std::size_t count) {
    switch (groups) {
      case 1: weigh_groups<1>(range, seen, first, count); break;
      case 2: weigh_groups<2>(range, seen, first, count); break;
      case 3: weigh_groups<3>(range, seen, first, count); break;
      default: weigh_groups<RANGE / LANES>(range, seen, first, count);
    }
    for (std::size_t r = 0; r < count && (buffers_.wanted() || seen.value_scales != nullptr); ++r) {
      float* weights = scores_ + r * RANGE;
      const Row& row = row_[first + r];
      if (sees(row, range)) buffers_.note_range(row.place, range, call_.layer.block_size, partial_.maximum[r], weights, seen.end);
      if (seen.value_scales != nullptr) scale_weights(weights, seen);
    }
  }

  template <std::size_t Groups>
  void weigh_groups(std::size_t range, const RangeView& seen, std::size_t first, std::size_t count) {
    if (!seen.whole || seen.key_scales != nullptr) mask(range, seen, first, count);
    for (std::size_t r = 0; r < count; ++r) partial_.maximum[r] = largest_score<Groups>(scores_ + r * RANGE);
    if (!seen.whole) {
      for (std::size_t r = 0; r < count; ++r) {
        if (!sees(row_[first + r], range)) partial_.maximum[r] = LOWEST;  // all weights become 2^-inf
      }
    }
    weigh_rows<Groups>(scores_, count, partial_.maximum, partial_.sum);
  }

  void mask(std::size_t range, const RangeView& seen, std::size_t first, std::size_t count) {
    for (std::size_t r = 0; r < count; ++r) {
      const Row& row = row_[first + r];
      if (sees(row, range)) {
        mask_row(scores_ + r * RANGE, begin_key(row, range), end_key(row, range), seen);
      } else {
        std::fill_n(scores_ + r * RANGE, RANGE, -std::numeric_limits<float>::infinity());
      }
    }
  }

  void keep(const State& state, std::size_t row, std::size_t count, const State& to) const {
    const State from = from_row(state, row, width_);
    std::memcpy(to.maximum, from.maximum, count * sizeof(float));
    std::memcpy(to.sum, from.sum, count * sizeof(float));
    std::memcpy(to.output, from.output, count * width_ * sizeof(float));
  }

  void finish(const State& state, std::size_t row, std::size_t count) {
    for (std::size_t r = row; r < row + count; ++r) {
      const float factor = 1.0f / state.sum[r];
      const float* from = state.output + r * width_;
      float* to = call_.out + row_[r].place * dim_;
      for (std::size_t at = 0; at < dim_; at += LANES) {
        (F32x16::load(from + at) * F32x16::broadcast(factor)).store_first(to + at, dim_ - at);
      }
      buffers_.note_row(row_[r].place, state.maximum[r], factor);
    }
  }

  const AttentionPlan& plan_;
  const AttentionCall& call_;
  const ScoreBuffers& buffers_;
  const std::size_t head_, dim_, width_, group_, heads_;
  const Reader<Element> reader_;
  std::size_t rows_ = 0;
  Row* row_ = nullptr;
  float* query_ = nullptr;   // [rows][dim], scaled
  float* scores_ = nullptr;  // [PANEL][RANGE]
  State state_{};            // of the section at hand
  State total_{};            // of the sections before
  State partial_{};          // of a panel's range; its outputs stay in registers
  Join join_{};
  Copies copies_{};
};

}  // namespace ramify::RAMIFY_ISA
