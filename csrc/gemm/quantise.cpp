#include "gemm/quantise.h"

#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "core/simd.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr float LARGEST_CODE = 127.0f;
constexpr float SMALLEST_MAGNITUDE = 1e-30f;
constexpr std::size_t LARGEST_GROUP = 128;

// The largest magnitude; a NaN counts as larger than everything. size is a multiple of 16.
#if defined(RAMIFY_LANES_512)
float largest_magnitude(const float* x, std::size_t size) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (std::size_t i = 0; i < size; i += LANES) {
    largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
  }
  return std::bit_cast<float>(_mm512_reduce_max_epi32(largest));
}
#elif defined(RAMIFY_LANES_256)
float largest_magnitude(const float* x, std::size_t size) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (std::size_t i = 0; i < size; i += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, magnitude));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return std::bit_cast<float>(_mm_cvtsi128_si32(four));
}
#else
float largest_magnitude(const float* x, std::size_t size) {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return std::bit_cast<float>(largest);
}
#endif

// x * factor for 16 inputs, to the nearest integers, halves to even, and the sum of all that were rounded.
#if defined(RAMIFY_LANES_512)
struct Rounding {
  __m512i sums = _mm512_setzero_si512();

  void round(const float* x, float factor, std::int8_t* codes) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(factor)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(rounded));
    sums = _mm512_add_epi32(sums, rounded);
  }
  std::int32_t sum() const { return _mm512_reduce_add_epi32(sums); }
};
#elif defined(RAMIFY_LANES_256)
struct Rounding {
  __m256i sums = _mm256_setzero_si256();

  void round(const float* x, float factor, std::int8_t* codes) {
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factors));
    const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factors));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
    sums = _mm256_add_epi32(sums, _mm256_add_epi32(low, high));
  }
  std::int32_t sum() const {
    const auto [first, second] = lane_sums();
    return first + second;
  }
  // Of the first two inputs of each four, and of the others.
  std::array<std::int32_t, 2> lane_sums() const {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return {_mm_cvtsi128_si32(four), _mm_extract_epi32(four, 2)};
  }
};
#else
struct Rounding {
  std::int32_t sums = 0;

  void round(const float* x, float factor, std::int8_t* codes) {
    for (std::size_t i = 0; i < LANES; ++i) {
      codes[i] = static_cast<std::int8_t>(std::lrint(x[i] * factor));
      sums += codes[i];
    }
  }
  std::int32_t sum() const { return sums; }
};
#endif

// Sixteen codes of a row, four to each step, which holds those of `rows` rows: as bytes, or as 16-bit integers beside
// weights of 8 bits.
inline void put_bytes(const std::int8_t* sixteen, std::int8_t* codes, std::size_t rows) {
  for (std::size_t j = 0; j < LANES; j += 4) std::memcpy(codes + j * rows, sixteen + j, 4);
}
#if defined(RAMIFY_LANES_256)
constexpr std::size_t BYTES_BESIDE_EIGHT_BITS = 2;  // see gemm_int_dot_256.h

inline void put_words(const std::int8_t* sixteen, std::int8_t* codes, std::size_t rows) {
  __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  words = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);  // 0 2 1 3
  alignas(32) std::int16_t ordered[LANES];
  _mm256_store_si256(reinterpret_cast<__m256i*>(ordered), words);
  for (std::size_t j = 0; j < LANES; j += 4) std::memcpy(codes + 2 * j * rows, ordered + j, 8);
}

// Codes of 2 * 32 inputs: a step holds two of the first and two of the second (see kernels/blocks.py).
inline void put_pair(const std::int8_t* pair, std::int8_t* codes, std::size_t rows) {
  alignas(32) std::int8_t steps[2 * SCALED_INPUTS];
  for (std::size_t half = 0; half < SCALED_INPUTS; half += LANES) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pair + half));
    __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pair + SCALED_INPUTS + half));
    second = _mm_shufflehi_epi16(_mm_shufflelo_epi16(second, 0xb1), 0xb1);  // 1 0 3 2
    auto* const to = reinterpret_cast<__m128i*>(steps + 2 * half);
    _mm_store_si128(to, _mm_unpacklo_epi16(first, second));
    _mm_store_si128(to + 1, _mm_unpackhi_epi16(first, second));
  }
  for (std::size_t j = 0; j < 2 * SCALED_INPUTS; j += 4) std::memcpy(codes + j * rows, steps + j, 4);
}
#else
constexpr std::size_t BYTES_BESIDE_EIGHT_BITS = 1;

inline void put_words(const std::int8_t*, std::int8_t*, std::size_t) {}
inline void put_pair(const std::int8_t*, std::int8_t*, std::size_t) {}
#endif

void put(const Groups& groups, const std::int8_t* sixteen, std::int8_t* codes, std::size_t rows) {
  if (groups.code_bytes == 1) {
    put_bytes(sixteen, codes, rows);
  } else {
    put_words(sixteen, codes, rows);
  }
}

// Two of 16 bits.
std::int32_t two_starts(const Groups& groups, std::int32_t first, std::int32_t second) {
  const auto low = static_cast<std::uint16_t>(-groups.zero * first), high = static_cast<std::uint16_t>(-groups.zero * second);
  return static_cast<std::int32_t>(low | std::uint32_t{high} << 16);
}

// What corrects the products of stored codes with some activations. With integer scales AVX2 corrects 16-bit sums, of
// which each lane meets two inputs of each four.
std::int32_t start_of(const Groups& groups, const Rounding& rounding) {
#if defined(RAMIFY_LANES_256)
  if (groups.integer_scales) {
    const auto [first, second] = rounding.lane_sums();
    return two_starts(groups, first, second);
  }
#endif
  return -groups.zero * rounding.sum();
}

struct Chunk {
  std::int32_t sum, start;
};

Chunk quantise_chunk(const Groups& groups, const float* x, float factor, std::int8_t* codes, std::size_t rows) {
  Rounding rounding;
  for (std::size_t i = 0; i < groups.chunk; i += LANES) {
    std::int8_t sixteen[LANES];
    rounding.round(x + i, factor, sixteen);
    put(groups, sixteen, codes + i * rows * groups.code_bytes, rows);
  }
  return {rounding.sum(), start_of(groups, rounding)};
}

Chunk quantise_pair(const Groups& groups, const float* x, float factor, std::int8_t* codes, std::size_t rows) {
  Rounding first, second;
  std::int8_t pair[2 * SCALED_INPUTS];
  for (std::size_t i = 0; i < SCALED_INPUTS; i += LANES) {
    first.round(x + i, factor, pair + i);
    second.round(x + SCALED_INPUTS + i, factor, pair + SCALED_INPUTS + i);
  }
  put_pair(pair, codes, rows);
  return {first.sum() + second.sum(), two_starts(groups, first.sum(), second.sum())};
}

// One group of a row: its codes go to every tile.rows-th step.
float quantise_group(const Groups& groups, const float* x, std::size_t size, std::int8_t* codes, std::size_t rows,
                     Chunk* chunks) {
  const std::size_t stride = rows * groups.code_bytes;
  const float largest = largest_magnitude(x, size);
  if (!(largest >= SMALLEST_MAGNITUDE && largest <= std::numeric_limits<float>::max())) {
    const std::int8_t zeros[LANES] = {};
    for (std::size_t i = 0; i < size; i += LANES) put(groups, zeros, codes + i * stride, rows);
    std::fill_n(chunks, size / groups.chunk, Chunk{});
    return largest < SMALLEST_MAGNITUDE ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const float factor = LARGEST_CODE / largest;
  const auto quantise = groups.pairs ? quantise_pair : quantise_chunk;
  for (std::size_t begin = 0; begin < size; begin += groups.chunk) {
    *chunks++ = quantise(groups, x + begin, factor, codes + begin * stride, rows);
  }
  return largest / LARGEST_CODE;
}

}  // namespace

Groups groups_of(const IntMatrix& weight) {
  const bool integer_scales = weight.factors != nullptr;
  const std::size_t chunk = integer_scales ? inputs_scaled_together(weight.bits) : std::min(weight.group, weight.activation_group);
  return {.columns = weight.padded_columns,
          .chunk = chunk,
          .chunks = weight.padded_columns / chunk,
          .groups = weight.padded_columns / weight.group,
          .activation_groups = weight.padded_columns / weight.activation_group,
          .chunks_together = std::max(weight.group, weight.activation_group) / chunk,
          .weight_outside = !integer_scales && weight.group >= weight.activation_group,
          .zero = weight.bits == 4 && weight.mins != nullptr ? 0 : 1 << (weight.bits - 1),
          .code_bytes = weight.bits == 8 ? BYTES_BESIDE_EIGHT_BITS : 1,
          .integer_scales = integer_scales,
          .pairs = integer_scales && chunk > SCALED_INPUTS};
}

std::size_t bytes_of_rows(const Groups& groups, std::size_t rows) {
  return rows * (groups.columns * groups.code_bytes + 4 * (groups.chunks + groups.activation_groups + groups.groups));
}

QuantisedTile tile_of(const Groups& groups, const Tiling& tiling, std::size_t tile, void* memory) {
  const std::size_t first = tiling.first(tile);
  auto* codes = static_cast<std::int8_t*>(memory);
  auto* starts = reinterpret_cast<std::int32_t*>(codes + tiling.rows * groups.columns * groups.code_bytes);
  auto* scales = reinterpret_cast<float*>(starts + tiling.rows * groups.chunks);
  auto* shifts = scales + tiling.rows * groups.activation_groups;
  return {.rows = tiling.height(tile),
          .codes = codes + first * groups.columns * groups.code_bytes,
          .starts = starts + first * groups.chunks,
          .scales = scales + first * groups.activation_groups,
          .shifts = shifts + first * groups.groups};
}

void quantise_row(const Groups& groups, const float* x, std::size_t columns, const QuantisedTile& tile, std::size_t row) {
  const std::size_t size = groups.columns / groups.activation_groups;
  const std::size_t chunks = size / groups.chunk;
  float shift = 0.0f;
  for (std::size_t group = 0; group < groups.activation_groups; ++group) {
    const std::size_t begin = group * size;
    float padded[LARGEST_GROUP];
    const float* inputs = x + begin;
    if (begin + size > columns) {
      std::fill_n(padded, size, 0.0f);
      if (begin < columns) std::copy(inputs, x + columns, padded);
      inputs = padded;
    }
    Chunk parts[LARGEST_GROUP / LANES];
    const float scale = quantise_group(groups, inputs, size, tile.codes + (begin * tile.rows + 4 * row) * groups.code_bytes, tile.rows, parts);
    tile.scales[group * tile.rows + row] = scale;
    for (std::size_t i = 0; i < chunks; ++i) {
      const std::size_t chunk = group * chunks + i;
      tile.starts[chunk * tile.rows + row] = parts[i].start;
      const float sum = static_cast<float>(parts[i].sum);
      if (groups.integer_scales) continue;
      if (groups.weight_outside) {
        const std::size_t place = chunk % groups.chunks_together;
        shift = place == 0 ? sum * scale : std::fma(sum, scale, shift);
        tile.shifts[chunk / groups.chunks_together * tile.rows + row] = shift;
      } else {
        tile.shifts[chunk * tile.rows + row] = sum;
      }
    }
  }
}

}  // namespace ramify::RAMIFY_ISA
