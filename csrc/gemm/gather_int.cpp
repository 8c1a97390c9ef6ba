#include "gemm/gather_int.h"

#include "core/simd.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 16384;
constexpr std::size_t STEP = 4;    // inputs that stand side by side
constexpr std::size_t STEP_BYTES = STEP * LANES;
constexpr std::size_t HALVES = 32;  // inputs of 4 bits that share their bytes

// The stored code of an input, from those of a column.
int four_bits(const std::uint8_t* codes, std::size_t k) {
  const int byte = codes[(k / HALVES * 4 + k % (HALVES / 2) / STEP) * STEP_BYTES + k % STEP];
  return k % HALVES >= HALVES / 2 ? byte >> 4 : byte & 15;
}
int six_bits(const std::uint8_t* codes, std::size_t k) {
  const std::uint8_t* const three = codes + k / 16 * 3 * STEP_BYTES + k % STEP;
  const std::size_t step = k % 16 / STEP;
  if (step < 3) return three[step * STEP_BYTES] & 63;
  return three[0] >> 6 << 4 | three[STEP_BYTES] >> 6 << 2 | three[2 * STEP_BYTES] >> 6;
}

float value_at(const void* values, bool half, std::size_t index) {
  return half ? f16_to_float(static_cast<const f16*>(values)[index]) : static_cast<const float*>(values)[index];
}

// Of 2 * 32 inputs, a step holds two of the first and two of the second.
int paired_four_bits(const std::uint8_t* codes, std::size_t k) {
  const std::size_t second = k / HALVES % 2, two = k % (HALVES / 2) / 2 ^ second;
  const int byte = codes[(k / (2 * HALVES) * HALVES / 4 + two) * STEP_BYTES + 2 * second + k % 2];
  return k % HALVES >= HALVES / 2 ? byte >> 4 : byte & 15;
}

// Integer scales, of 32 inputs each.
void gather_scaled_row(const IntMatrix& weight, std::size_t row, float* out) {
  const std::size_t block = row / LANES, lane = row % LANES, groups = weight.padded_columns / HALVES;
  const std::uint8_t* const codes = weight.codes + block * LANES * weight.padded_columns * weight.bits / 8 + lane * STEP;
  const auto* const scales = static_cast<const std::int8_t*>(weight.scales) + block * groups * LANES + lane;
  const std::uint16_t* const factors = weight.factors + block * (weight.padded_columns / weight.activation_group) * LANES + lane;
  for (std::size_t k = 0; k < weight.columns; ++k) {
    const int code = (weight.bits == 6 ? six_bits(codes, k) : paired_four_bits(codes, k)) - (1 << (weight.bits - 1));
    const int scaled = code * scales[k / HALVES * LANES];
    out[k] = static_cast<float>(scaled) * bf16_to_float(factors[k / weight.activation_group * LANES]);
  }
}

void gather_row(const IntMatrix& weight, std::size_t row, float* out) {
  const std::size_t block = row / LANES, lane = row % LANES;
  const std::uint8_t* codes = weight.codes + block * LANES * weight.padded_columns * weight.bits / 8 + lane * STEP;
  const std::size_t first_value = block * (weight.padded_columns / weight.group) * LANES + lane;
  const int zero = weight.bits == 8 ? 128 : weight.mins == nullptr ? 8 : 0;
  for (std::size_t begin = 0; begin < weight.columns; begin += weight.group) {
    const std::size_t at = first_value + begin / weight.group * LANES, end = std::min(begin + weight.group, weight.columns);
    const float scale = value_at(weight.scales, weight.half_scales, at);
    const float min = weight.mins == nullptr ? 0.0f : value_at(weight.mins, weight.half_mins, at);
    for (std::size_t k = begin; k < end; ++k) {
      const int code = (weight.bits == 8 ? codes[k / STEP * STEP_BYTES + k % STEP] : four_bits(codes, k)) - zero;
      const float value = static_cast<float>(code) * scale;
      out[k] = weight.mins == nullptr ? value : value + min;
    }
  }
}

}  // namespace

void gather_rows(const IntMatrix& weight, const std::int64_t* ids, std::size_t count, float* out) {
  parallel_for(count, 1 + ELEMENTS_AT_ONCE / weight.columns, [&](std::size_t begin, std::size_t end) {
    const auto gather = weight.factors == nullptr ? gather_row : gather_scaled_row;
    for (std::size_t i = begin; i < end; ++i) gather(weight, static_cast<std::size_t>(ids[i]), out + i * weight.columns);
  });
}

}  // namespace ramify::RAMIFY_ISA
