#include "gemm/gather_int.h"

#include "core/simd.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ELEMENTS_AT_ONCE = 16384;
constexpr std::size_t STEP = 4;    // inputs that stand side by side
constexpr std::size_t HALVES = 32;  // inputs of 4 bits that share their bytes

float value_at(const void* values, bool half, std::size_t index) {
  return half ? f16_to_float(static_cast<const f16*>(values)[index]) : static_cast<const float*>(values)[index];
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
      const bool high = weight.bits == 4 && k % HALVES >= HALVES / 2;
      const std::size_t step = weight.bits == 8 ? k / STEP : k / HALVES * 4 + k % (HALVES / 2) / STEP;
      const int byte = codes[step * LANES * STEP + k % STEP];
      const int code = (weight.bits == 8 ? byte : high ? byte >> 4 : byte & 15) - zero;
      const float value = static_cast<float>(code) * scale;
      out[k] = weight.mins == nullptr ? value : value + min;
    }
  }
}

}  // namespace

void gather_rows(const IntMatrix& weight, const std::int64_t* ids, std::size_t count, float* out) {
  parallel_for(count, 1 + ELEMENTS_AT_ONCE / weight.columns, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) gather_row(weight, static_cast<std::size_t>(ids[i]), out + i * weight.columns);
  });
}

}  // namespace ramify::RAMIFY_ISA
