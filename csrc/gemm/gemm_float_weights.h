// How a tile reads packed weights: one type for each format. `visit` hands over the sixteen columns of a panel for each
// input of a step, in order; the activations that belong to a format are laid out by its `store`.
#pragma once

#include "gemm/gemm_float.h"
#include "core/simd.h"

#define RAMIFY_INLINE __attribute__((always_inline)) inline

namespace ramify::RAMIFY_ISA {

constexpr std::size_t PANEL = LANES;  // columns

// Thirty-two bit lanes of packed codes.
#if defined(RAMIFY_LANES_512)

struct CodeWords {
  __m512i v;
  static CodeWords load(const void* p) { return {_mm512_loadu_si512(p)}; }
};
inline CodeWords operator&(CodeWords a, std::uint32_t bits) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(bits)))};
}
inline CodeWords operator^(CodeWords a, std::uint32_t bits) {
  return {_mm512_xor_si512(a.v, _mm512_set1_epi32(static_cast<int>(bits)))};
}
inline CodeWords shift_left(CodeWords a, int bits) { return {_mm512_slli_epi32(a.v, static_cast<unsigned>(bits))}; }
inline CodeWords shift_right(CodeWords a, std::size_t bits) {
  return {_mm512_srl_epi32(a.v, _mm_cvtsi64_si128(static_cast<long long>(bits)))};
}
inline CodeWords highest_byte(CodeWords a) { return {_mm512_srai_epi32(a.v, 24)}; }
inline F32x16 as_float(CodeWords a) { return {_mm512_castsi512_ps(a.v)}; }
inline F32x16 to_float(CodeWords a) { return {_mm512_cvtepi32_ps(a.v)}; }

#elif defined(RAMIFY_LANES_256)

struct CodeWords {
  __m256i lo, hi;
  static CodeWords load(const void* p) {
    const auto* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
};
inline CodeWords operator&(CodeWords a, std::uint32_t bits) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(bits));
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
inline CodeWords operator^(CodeWords a, std::uint32_t bits) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(bits));
  return {_mm256_xor_si256(a.lo, mask), _mm256_xor_si256(a.hi, mask)};
}
inline CodeWords shift_left(CodeWords a, int bits) { return {_mm256_slli_epi32(a.lo, bits), _mm256_slli_epi32(a.hi, bits)}; }
inline CodeWords shift_right(CodeWords a, std::size_t bits) {
  const __m128i count = _mm_cvtsi64_si128(static_cast<long long>(bits));
  return {_mm256_srl_epi32(a.lo, count), _mm256_srl_epi32(a.hi, count)};
}
inline CodeWords highest_byte(CodeWords a) { return {_mm256_srai_epi32(a.lo, 24), _mm256_srai_epi32(a.hi, 24)}; }
inline F32x16 as_float(CodeWords a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline F32x16 to_float(CodeWords a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

#else

struct CodeWords {
  std::uint32_t v[LANES];

  template <class Lane>
  static CodeWords each(Lane lane) {
    CodeWords out;
    for (std::size_t i = 0; i < LANES; ++i) out.v[i] = lane(i);
    return out;
  }
  static CodeWords load(const void* p) {
    CodeWords out;
    std::memcpy(out.v, p, sizeof(out.v));
    return out;
  }
};
inline CodeWords operator&(CodeWords a, std::uint32_t bits) {
  return CodeWords::each([&](std::size_t i) { return a.v[i] & bits; });
}
inline CodeWords operator^(CodeWords a, std::uint32_t bits) {
  return CodeWords::each([&](std::size_t i) { return a.v[i] ^ bits; });
}
inline CodeWords shift_left(CodeWords a, int bits) {
  return CodeWords::each([&](std::size_t i) { return a.v[i] << bits; });
}
inline CodeWords shift_right(CodeWords a, std::size_t bits) {
  return CodeWords::each([&](std::size_t i) { return a.v[i] >> bits; });
}
inline CodeWords highest_byte(CodeWords a) {
  return CodeWords::each([&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<std::int32_t>(a.v[i]) >> 24); });
}
inline F32x16 as_float(CodeWords a) {
  return F32x16::each([&](std::size_t i) { return std::bit_cast<float>(a.v[i]); });
}
inline F32x16 to_float(CodeWords a) {
  return F32x16::each([&](std::size_t i) { return static_cast<float>(static_cast<std::int32_t>(a.v[i])); });
}

#endif

// Each format: INPUTS of a step, BYTES of a step in one panel, the type of one activation and how many inputs it holds.
struct FloatMultiply {
  using Activation = float;
  using Vector = F32x16;
  static constexpr std::size_t INPUTS_PER_ACTIVATION = 1;
  static RAMIFY_INLINE F32x16 multiply(float x, F32x16 weight, F32x16 sum) { return fma(F32x16::broadcast(x), weight, sum); }
};

struct Float32Weight : FloatMultiply {
  static constexpr std::size_t INPUTS = 1;
  static constexpr std::size_t BYTES = 64;
  template <class Visit>
  static RAMIFY_INLINE void visit(const char* panel, std::size_t step, Visit&& each) {
    each(0, F32x16::load(reinterpret_cast<const float*>(panel + step * BYTES)));
  }
  static void store(F32x16 x, float* activations) { x.store(activations); }
};

struct Bfloat16Weight : FloatMultiply {
  static constexpr std::size_t INPUTS = 2;
  static constexpr std::size_t BYTES = 64;
  template <class Visit>
  static RAMIFY_INLINE void visit(const char* panel, std::size_t step, Visit&& each) {
    const CodeWords pairs = CodeWords::load(panel + step * BYTES);
    each(0, as_float(shift_left(pairs, 16)));
    each(1, as_float(pairs & 0xffff0000u));
  }
  static void store(F32x16 x, float* activations) {
    bf16 rounded[LANES];
    x.store_bf16(rounded);
    F32x16::load_bf16(rounded).store(activations);
  }
};

#if defined(RAMIFY_ISA_avx512bf16)
// Pairs of inputs by the processor's own instruction, which takes subnormal numbers for zero.
struct Bfloat16Pairs {
  using Activation = std::uint32_t;
  using Vector = CodeWords;
  static constexpr std::size_t INPUTS_PER_ACTIVATION = 2;
  static constexpr std::size_t INPUTS = 2;
  static constexpr std::size_t BYTES = 64;
  template <class Visit>
  static RAMIFY_INLINE void visit(const char* panel, std::size_t step, Visit&& each) {
    each(0, CodeWords::load(panel + step * BYTES));
  }
  static RAMIFY_INLINE F32x16 multiply(std::uint32_t x, CodeWords weight, F32x16 sum) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(x));
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(weight.v), reinterpret_cast<__m512bh>(pair))};
  }
  static void store(F32x16 x, std::uint32_t* activations) { x.store_bf16(reinterpret_cast<bf16*>(activations)); }
};
using Bfloat16Read = Bfloat16Pairs;
#else
using Bfloat16Pairs = Bfloat16Weight;
using Bfloat16Read = Float32Weight;  // unpacked once for many rows
#endif

struct Int8Weight : FloatMultiply {
  static constexpr std::size_t INPUTS = 4;
  static constexpr std::size_t BYTES = 64;
  template <class Visit>
  static RAMIFY_INLINE void visit(const char* panel, std::size_t step, Visit&& each) {
    const CodeWords codes = CodeWords::load(panel + step * BYTES) ^ 0x80808080u;  // stored with 128 added
    each(0, to_float(highest_byte(shift_left(codes, 24))));
    each(1, to_float(highest_byte(shift_left(codes, 16))));
    each(2, to_float(highest_byte(shift_left(codes, 8))));
    each(3, to_float(highest_byte(codes)));
  }
  static void store(F32x16 x, float* activations) { x.store(activations); }
};

// A code stays where it is in its 32 bits, and so is 2^8, 2^16 or 2^24 times as large; its activation is as much smaller.
struct Int4Weight : FloatMultiply {
  static constexpr std::size_t INPUTS = 4;
  static constexpr std::size_t BYTES = 32;
  template <class Visit>
  static RAMIFY_INLINE void visit(const char* panel, std::size_t step, Visit&& each) {
    const char* bytes = panel + step / 8 * 256 + step % 4 * 64;
    const CodeWords codes = shift_right(CodeWords::load(bytes), step & 4);
    each(0, to_float(codes & 0x0000000fu));
    each(1, to_float(codes & 0x00000f00u));
    each(2, to_float(codes & 0x000f0000u));
    each(3, to_float(codes & 0x0f000000u));
  }
  static void store(F32x16 x, float* activations) {
    alignas(64) static constexpr float smaller[LANES] = {
        0x1p0f, 0x1p-8f, 0x1p-16f, 0x1p-24f, 0x1p0f, 0x1p-8f, 0x1p-16f, 0x1p-24f,
        0x1p0f, 0x1p-8f, 0x1p-16f, 0x1p-24f, 0x1p0f, 0x1p-8f, 0x1p-16f, 0x1p-24f};
    (x * F32x16::load(smaller)).store(activations);
  }
};

}  // namespace ramify::RAMIFY_ISA
