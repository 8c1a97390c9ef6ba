// Where the keys and values of a range are read: from the cache as they lie, or from a copy of them in float32 that stays
// in the first-level cache while many rows are multiplied with it. Both give the same bits.
#pragma once

#include "attention/attention_kernels.h"
#include "attention/kv_types.h"

namespace ramify::RAMIFY_ISA {

// Memory for the copies.
struct Copies {
  float* keys;          // [dim][RANGE]
  float* values;        // [RANGE][width]
  float* key_scales;    // [RANGE]
  float* value_scales;  // [RANGE]
};

template <class Element>
class Reader {
 public:
  Reader(const AttentionPlan& plan, const KVLayer& layer, std::size_t head, std::size_t width)
      : plan_(plan),
        layer_(layer),
        width_(width),
        keys_(static_cast<const Element*>(layer.keys) + head * layer.blocks * layer.block_size * layer.head_dim),
        values_(static_cast<const Element*>(layer.values) + head * layer.blocks * layer.block_size * layer.head_dim),
        key_scales_(scales(layer.key_scales, layer, head)),
        value_scales_(scales(layer.value_scales, layer, head)) {}

  // Whether a tile's range can be read where it lies.
  bool lies_well(const AttentionTile& tile, std::size_t range) const {
    return layer_.block_size % LANES == 0 && layer_.head_dim % LANES == 0 && tile.tail_start >= (range + 1) * RANGE;
  }

  Source<Element> in_place(const AttentionTile& tile, std::size_t range, std::size_t end) const {
    const std::size_t size = layer_.block_size, dim = layer_.head_dim;
    Source<Element> source{.keys = {}, .key_step = size, .values = {}, .value_step = dim, .block_size = size};
    for (std::size_t at = 0; at < end; at += LANES) {
      source.keys[at / LANES] = keys_ + block(tile, range * RANGE + at) * dim * size + at % size;
    }
    for (std::size_t at = 0; at < end; at += size) source.values[at / size] = values_ + block(tile, range * RANGE + at) * dim * size;
    return source;
  }

  // Asks for the blocks of a range that comes next: the processor foresees a block's lines, not which block follows.
  void prefetch(const AttentionTile& tile, std::size_t range) const {
    const std::size_t bytes = layer_.head_dim * layer_.block_size * sizeof(Element);
    const std::size_t end = std::min<std::size_t>((range + 1) * RANGE, tile.num_blocks * layer_.block_size);
    for (std::size_t at = range * RANGE; at < end; at += layer_.block_size) {
      const std::size_t from = block(tile, at) * bytes;
      for (std::size_t line = 0; line < bytes; line += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(keys_) + from + line, 0, 2);
        __builtin_prefetch(reinterpret_cast<const char*>(values_) + from + line, 0, 2);
      }
    }
  }

  // Copies the keys before `end` of a range.
  Source<float> copied(const AttentionTile& tile, std::size_t range, std::size_t end, const Copies& to) const {
    const std::size_t size = layer_.block_size, first = range * RANGE;
    const std::size_t whole = std::min<std::size_t>(end, tile.tail_start > first ? tile.tail_start - first : 0);
    for (std::size_t at = 0; at < whole; at += size) {
      const std::size_t from = block(tile, first + at), count = std::min(size, whole - at);
      if (count == size && size % LANES == 0) copy_block_keys(from, to.keys + at);
      for (std::size_t i = 0; i < count; ++i) copy_slot(from * size + i, at + i, count < size || size % LANES != 0, to);
    }
    for (std::size_t at = whole; at < end; ++at) copy_slot(plan_.tail_slots[tile.tail + first + at - tile.tail_start], at, true, to);
    Source<float> source{.keys = {}, .key_step = RANGE, .values = {}, .value_step = width_, .block_size = RANGE};
    for (std::size_t g = 0; g < RANGE / LANES; ++g) source.keys[g] = to.keys + g * LANES;
    source.values[0] = to.values;
    return source;
  }

  void copy_scales(const AttentionTile& tile, std::size_t range, std::size_t end, const Copies& to) const {
    for (std::size_t at = 0; at < end; ++at) {
      const std::size_t from = slot(tile, range * RANGE + at);
      to.key_scales[at] = key_scales_[from];
      to.value_scales[at] = value_scales_[from];
    }
  }

 private:
  static const float* scales(const float* of, const KVLayer& layer, std::size_t head) {
    return of == nullptr ? nullptr : of + head * layer.blocks * layer.block_size;
  }

  std::size_t block(const AttentionTile& tile, std::size_t position) const {
    return static_cast<std::size_t>(plan_.blocks[tile.blocks + position / layer_.block_size]);
  }

  std::size_t slot(const AttentionTile& tile, std::size_t position) const {
    if (position >= tile.tail_start) return plan_.tail_slots[tile.tail + position - tile.tail_start];
    return block(tile, position) * layer_.block_size + position % layer_.block_size;
  }

  void copy_block_keys(std::size_t from, float* to) const {
    const std::size_t size = layer_.block_size, dim = layer_.head_dim;
    const Element* key = keys_ + from * dim * size;
    for (std::size_t d = 0; d < dim; ++d, key += size) {
      for (std::size_t i = 0; i < size; i += LANES) widen(key + i).store(to + d * RANGE + i);
    }
  }

  // One value, and if asked for one key.
  void copy_slot(std::size_t from, std::size_t at, bool with_key, const Copies& to) const {
    const std::size_t size = layer_.block_size, dim = layer_.head_dim;
    const Element* value = values_ + from * dim;
    std::size_t d = 0;
    for (; d + LANES <= dim; d += LANES) widen(value + d).store(to.values + at * width_ + d);
    for (; d < dim; ++d) to.values[at * width_ + d] = single(value[d]);
    if (!with_key) return;
    const Element* key = keys_ + from / size * dim * size + from % size;
    for (std::size_t i = 0; i < dim; ++i) to.keys[i * RANGE + at] = single(key[i * size]);
  }

  static float single(float x) { return x; }
  static float single(bf16 x) { return bf16_to_float(x); }
  static float single(std::int8_t x) { return static_cast<float>(x); }

  const AttentionPlan& plan_;
  const KVLayer& layer_;
  const std::size_t width_;
  const Element* const keys_;
  const Element* const values_;
  const float* const key_scales_;  // of int8 only
  const float* const value_scales_;
};

}  // namespace ramify::RAMIFY_ISA
