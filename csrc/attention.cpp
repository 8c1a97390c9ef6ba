#include "attention.h"

#include <cmath>
#include <cstring>

#include "attention_scores.h"
#include "attention_softmax.h"
#include "attention_source.h"
#include "kv_layout.h"
#include "thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr std::size_t PANEL = 48;  // rows whose scores of a range are held at once: a multiple of every MAX_ROWS and of 16
constexpr std::size_t IN_PLACE_ROWS = 2 * MAX_ROWS;  // more rows pay for a float32 copy of the range

std::size_t round_up(std::size_t n) { return (n + LANES - 1) / LANES * LANES; }

// One row of an item: one query head of one token.
struct Row {
  std::uint32_t begin, end;  // positions it sees
  std::size_t place;         // token * heads + head
};

// Takes pieces of a stretch of memory, each aligned to 64 bytes.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(std::size_t floats) {
    float* piece = next_;
    next_ += round_up(floats);
    return piece;
  }
  State take_state(std::size_t rows, std::size_t width) { return {take(rows), take(rows), take(rows * width)}; }

 private:
  float* next_;
};

std::size_t state_floats(std::size_t rows, std::size_t width) { return 2 * round_up(rows) + rows * width; }

void clear(const State& state, std::size_t rows, std::size_t width) {
  std::fill(state.maximum, state.maximum + round_up(rows), LOWEST);
  std::memset(state.sum, 0, round_up(rows) * sizeof(float));
  std::memset(state.output, 0, rows * width * sizeof(float));
}

State from_row(const State& state, std::size_t row, std::size_t width) {
  return {state.maximum + row, state.sum + row, state.output + row * width};
}

// Joins the state of a later section to that of the sections before it.
void join_states(const State& state, const State& later, std::size_t rows, std::size_t width, const Join& join) {
  join_sums(state, later.maximum, later.sum, rows, join);
  for (std::size_t r = 0; r < rows; ++r) {
    const F32x16 keep = F32x16::broadcast(join.keep[r]), add = F32x16::broadcast(join.add[r]);
    for (std::size_t at = r * width; at < (r + 1) * width; at += LANES) {
      fma(F32x16::load(state.output + at), keep, F32x16::load(later.output + at) * add).store(state.output + at);
    }
  }
}

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
    for (std::size_t section = item.section_begin; section < item.section_end; ++section) {
      clear(state_, rows_, width_);
      fold_section(item, section);
      if (item.section_end - item.section_begin > 1) join_states(total_, state_, rows_, width_, join_);
    }
    if (item.section_end - item.section_begin > 1) return finish(total_, 0, rows_);
    std::size_t row = 0;
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) {
      const AttentionTile& tile = plan_.tiles[plan_.members[i]];
      const std::size_t count = tile.queries * group_;
      if (tile.sections == 1) {
        finish(state_, row, count);
      } else {
        keep(partials, tile, item.section_begin, row, count);
      }
      row += count;
    }
  }

  // Folds the sections of a tile that were computed apart.
  void merge(const AttentionTile& tile, const State& partials) {
    rows_ = tile.queries * group_;
    Carver carver(thread_scratch(2 * state_floats(rows_, width_) + 3 * round_up(rows_) + row_floats()));
    take_rows(carver);
    total_ = carver.take_state(rows_, width_);
    state_ = carver.take_state(rows_, width_);  // its sums are padded to 16, which those of the partials are not
    join_ = {carver.take(rows_), carver.take(rows_)};
    add_rows(tile, 0);
    clear(total_, rows_, width_);
    for (std::size_t section = 0; section < tile.sections; ++section) {
      const State part = from_row(partials, tile.partial + section * rows_, width_);
      std::memcpy(state_.maximum, part.maximum, rows_ * sizeof(float));
      std::memcpy(state_.sum, part.sum, rows_ * sizeof(float));
      join_states(total_, {state_.maximum, state_.sum, part.output}, rows_, width_, join_);
    }
    finish(total_, 0, rows_);
  }

 private:
  std::size_t row_floats() const { return round_up(rows_ * sizeof(Row) / sizeof(float)); }

  void take_rows(Carver& carver) { row_ = reinterpret_cast<Row*>(carver.take(row_floats())); }

  void prepare(const AttentionItem& item) {
    rows_ = 0;
    for (std::size_t i = item.member_begin; i < item.member_end; ++i) rows_ += plan_.tiles[plan_.members[i]].queries * group_;
    Carver carver(thread_scratch(row_floats() + round_up(rows_ * dim_) + 2 * state_floats(rows_, width_) + 4 * round_up(rows_) +
                                 PANEL * RANGE + 2 * round_up(rows_) + RANGE * (dim_ + width_ + 2)));
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
      for (std::size_t at = 0; at < group_ * dim_; at += LANES) {
        const std::size_t n = group_ * dim_ - at;
        (F32x16::load_first(from + at, n) * factor).store_first(to + at, n);
      }
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
    if (end_row - begin_row <= IN_PLACE_ROWS) reader_.prefetch(tile, range + 1);
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
    std::size_t begin = RANGE, end = 0;
    for (std::size_t r = first; r < first + count; ++r) {
      if (!sees(row_[r], range)) continue;
      begin = std::min(begin, begin_key(row_[r], range));
      end = std::max(end, end_key(row_[r], range));
    }
    const bool scaled = call_.layer.type == KVType::int8;
    return {begin, end, scaled ? copies_.key_scales : nullptr, scaled ? copies_.value_scales : nullptr};
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
    for (std::size_t r = 0; r < count; ++r) weigh(row_[first + r], range, seen, r);
    for (std::size_t r = count; r < round_up(count); ++r) skip(r);
    const State state = from_row(state_, first, width_);
    const Join join{join_.keep, join_.add};
    join_panel(state, count, join);
    for (std::size_t r = 0; r < count; ++r) {
      if (!sees(row_[first + r], range)) join.add[r] = -1.0f;
    }
    for (std::size_t done = 0, n = 0; done < count; done += n) {
      n = next_rows(count - done);
      RowKernels<Stored>::sum[n - 1](scores_ + done * RANGE, seen.begin, seen.end, source, {join.keep + done, join.add + done},
                                     state.output + done * width_, width_);
    }
  }

  void skip(std::size_t r) {
    partial_.maximum[r] = LOWEST;
    partial_.sum[r] = 0.0f;
  }

  // Scores to weights, of one row of a panel.
  void weigh(const Row& row, std::size_t range, const RangeView& seen, std::size_t r) {
    float* scores = scores_ + r * RANGE;
    if (!sees(row, range)) {
      std::fill(scores, scores + RANGE, 0.0f);
      return skip(r);
    }
    const Partial partial = partial_softmax(scores, begin_key(row, range), end_key(row, range), seen);
    partial_.maximum[r] = partial.maximum;
    partial_.sum[r] = partial.sum;
    buffers_.note_range(row.place, range, call_.layer.block_size, partial.maximum, scores, seen.end);
    if (seen.value_scales != nullptr) scale_weights(scores, seen);
  }

  // `join_sums` on rows whose place is not a multiple of 16.
  void join_panel(const State& state, std::size_t count, const Join& join) {
    alignas(64) float maximum[PANEL], sum[PANEL];
    std::memcpy(maximum, state.maximum, count * sizeof(float));
    std::memcpy(sum, state.sum, count * sizeof(float));
    for (std::size_t r = count; r < round_up(count); ++r) maximum[r] = LOWEST, sum[r] = 0.0f;
    join_sums({maximum, sum, nullptr}, partial_.maximum, partial_.sum, count, join);
    std::memcpy(state.maximum, maximum, count * sizeof(float));
    std::memcpy(state.sum, sum, count * sizeof(float));
  }

  void keep(const State& partials, const AttentionTile& tile, std::size_t section, std::size_t row, std::size_t count) {
    const State to = from_row(partials, tile.partial + section * count, width_), from = from_row(state_, row, width_);
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

template <class Element>
void attend_wave(const AttentionPlan& plan, const AttentionCall& call, const ScoreBuffers& buffers, const AttentionWave& wave,
                 float* memory) {
  const std::size_t kv_heads = plan.shape.kv_heads, width = round_up(call.layer.head_dim);
  const std::size_t a_head = state_floats(wave.partial_rows, width);
  const auto partials = [=, &wave](std::size_t head) {
    Carver carver(memory + head * a_head);
    return carver.take_state(wave.partial_rows, width);
  };
  parallel_for(wave.items.size() * kv_heads, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Work<Element>(plan, call, buffers, i % kv_heads).run(wave.items[i / kv_heads], partials(i % kv_heads));
    }
  });
  parallel_for(wave.split.size() * kv_heads, 4, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Work<Element>(plan, call, buffers, i % kv_heads).merge(plan.tiles[wave.split[i / kv_heads]], partials(i % kv_heads));
    }
  });
}

template <class Element>
void attend_all(const AttentionPlan& plan, const AttentionCall& call) {
  const std::size_t width = round_up(call.layer.head_dim), kv_heads = plan.shape.kv_heads;
  std::size_t floats = 0;
  for (const AttentionWave& wave : plan.waves) floats = std::max(floats, kv_heads * state_floats(wave.partial_rows, width));
  const std::size_t wanted = call.block_scores != nullptr ? ScoreBuffers::floats(plan) : 0;
  float* memory = shared_scratch(round_up(floats) + wanted);
  const ScoreBuffers buffers(plan, call, wanted != 0 ? memory + round_up(floats) : nullptr);
  for (const AttentionWave& wave : plan.waves) attend_wave<Element>(plan, call, buffers, wave, memory);
  buffers.finish();
}

void attend(const AttentionPlan& plan, const AttentionCall& call) {
  switch (call.layer.type) {
    case KVType::float32: return attend_all<float>(plan, call);
    case KVType::bfloat16: return attend_all<bf16>(plan, call);
    case KVType::int8: return attend_all<std::int8_t>(plan, call);
  }
}

void store(const KVLayer& layer, const float* keys, const float* values, std::size_t key_stride, std::size_t value_stride,
           const std::int64_t* slots, std::size_t tokens) {
  parallel_for(tokens, 16, [=, &layer](std::size_t begin, std::size_t end) {
    for (std::size_t head = 0; head < layer.kv_heads; ++head) {
      for (std::size_t token = begin; token < end; ++token) {
        const auto slot = static_cast<std::size_t>(slots[token]);
        store_key(layer, head, slot, keys + token * key_stride + head * layer.head_dim);
        store_value(layer, head, slot, values + token * value_stride + head * layer.head_dim);
      }
    }
  });
}

}  // namespace

AttentionOps attention_ops() { return {.attend = attend, .store = store}; }

}  // namespace ramify::RAMIFY_ISA
