// The way of one row of keys or values into the cache (see kv_types.h for how it lies there). Whoever writes it uses this.
//
// int8: one float32 scale a token and head, code = round(x / scale), scale = max|x| / 127.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "attention/kv_types.h"
#include "core/simd.h"

namespace ramify::RAMIFY_ISA {

inline void encode(float value, float* out) { *out = value; }
inline void encode(float value, bf16* out) { *out = float_to_bf16(value); }
inline void encode(float value, std::int8_t* out) { *out = static_cast<std::int8_t>(std::nearbyint(value)); }

// Writes `size` elements of a row with a step between them, each multiplied by `factor` first.
template <class Element>
void store_elements(const float* row, std::size_t size, float factor, Element* out, std::size_t step) {
  std::size_t i = 0;
  if constexpr (sizeof(Element) == sizeof(bf16)) {
    for (; step == 1 && i + LANES <= size; i += LANES) F32x16::load(row + i).store_bf16(out + i);
  }
  for (; i < size; ++i) encode(row[i] * factor, out + i * step);
}

// The scale of a row. A row that is not finite gets a NaN (with codes of zero), so that whoever reads it finds out.
inline float int8_scale(const float* row, std::size_t size) {
  float largest = 0.0f;
  bool finite = true;
  for (std::size_t i = 0; i < size; ++i) {
    const float magnitude = std::fabs(row[i]);
    finite = finite && magnitude <= 3.4e38f;
    largest = magnitude > largest ? magnitude : largest;
  }
  return finite ? largest / 127.0f : std::bit_cast<float>(0x7fc00000u);
}

inline void store_row(const KVLayer& layer, const float* row, void* to, float* scales, std::size_t element, std::size_t step,
                      std::size_t scale_at) {
  const std::size_t size = layer.head_dim;
  switch (layer.type) {
    case KVType::float32: return store_elements(row, size, 1.0f, static_cast<float*>(to) + element, step);
    case KVType::bfloat16: return store_elements(row, size, 1.0f, static_cast<bf16*>(to) + element, step);
    case KVType::int8: break;
  }
  const float scale = int8_scale(row, size);
  scales[scale_at] = scale;
  const bool usable = scale > 1e-36f;  // of less the reciprocal is not finite; NaN is not usable either
  auto* codes = static_cast<std::int8_t*>(to) + element;
  if (usable) return store_elements(row, size, 1.0f / scale, codes, step);
  for (std::size_t i = 0; i < size; ++i) codes[i * step] = 0;
}

// Stores one head's key of one token at `slot` (block * block_size + offset); row: [head_dim].
inline void store_key(const KVLayer& layer, std::size_t head, std::size_t slot, const float* row) {
  const std::size_t block = head * layer.blocks + slot / layer.block_size, offset = slot % layer.block_size;
  store_row(layer, row, layer.keys, layer.key_scales, block * layer.head_dim * layer.block_size + offset, layer.block_size,
            block * layer.block_size + offset);
}

// Likewise its value.
inline void store_value(const KVLayer& layer, std::size_t head, std::size_t slot, const float* row) {
  const std::size_t place = head * layer.blocks * layer.block_size + slot;
  store_row(layer, row, layer.values, layer.value_scales, place * layer.head_dim, 1, place);
}

}  // namespace ramify::RAMIFY_ISA
