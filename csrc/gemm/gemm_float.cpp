#include "gemm/gemm_float.h"

#include "gemm/gemm_float_blocks.h"

namespace ramify::RAMIFY_ISA {
namespace {

constexpr std::size_t ROWS_AT_ONCE = 512;  // bounds the copy of the activations
constexpr std::size_t HALVES = 32;         // inputs are padded to it at least

constexpr std::size_t UNPACKED_BLOCKS = 4;  // from here on unpacking a chunk costs less than it saves

// `Read` is what the tiles of so many blocks of rows read instead of the weight as it is packed.
template <class Weight, class Read, bool CODED>
void multiply_pass(Job job) {
  const bool as_they_are = std::is_same_v<Weight, Float32Weight> && job.product.count == 1 && job.columns == job.padded;
  job.blocks = ceil_div(job.product.count, static_cast<std::size_t>(MOST_ROWS));
  if (as_they_are) {
    job.activations = job.product.x;
  } else {
    lay_out_activations<Weight>(job);
  }
  if (job.blocks == 1) {
    stream<Weight, CODED>(job);
  } else if (job.blocks < UNPACKED_BLOCKS) {
    Blocks<Weight, Weight, CODED>(job).run();
  } else {
    Blocks<Weight, Read, CODED>(job).run();
  }
}

template <class Weight, class Read, bool CODED>
void multiply(Job job) {
  job.panel_bytes = job.padded / Weight::INPUTS * Weight::BYTES;
  const FloatProduct all = job.product;
  const std::size_t passes = ceil_div(all.count, ROWS_AT_ONCE);
  for (std::size_t pass = 0; pass < passes; ++pass) {
    const std::size_t first = pass * all.count / passes;
    job.product = {.x = all.x + first * job.columns,
                   .count = (pass + 1) * all.count / passes - first,
                   .bias = all.bias,
                   .residual = all.residual == nullptr ? nullptr : all.residual + first * job.rows,
                   .out = all.out + first * job.rows};
    multiply_pass<Weight, Read, CODED>(job);
  }
}

std::size_t padded_columns(const FloatMatrix& weight) { return ceil_div(weight.columns, HALVES) * HALVES; }

void linear(const FloatMatrix& weight, const FloatProduct& product) {
  const Job job{.product = product,
                .rows = weight.rows,
                .columns = weight.columns,
                .padded = padded_columns(weight),
                .weight = static_cast<const char*>(weight.values)};
  if (weight.bfloat16) {
    multiply<Bfloat16Pairs, Bfloat16Read, false>(job);
  } else {
    multiply<Float32Weight, Float32Weight, false>(job);
  }
}

void linear_coded(const IntMatrix& weight, const FloatProduct& product) {
  const Job job{.product = product,
                .rows = weight.rows,
                .columns = weight.columns,
                .padded = weight.padded_columns,
                .weight = reinterpret_cast<const char*>(weight.codes),
                .coded = &weight};
  if (weight.bits == 4) {
    multiply<Int4Weight, Float32Weight, true>(job);
  } else {
    multiply<Int8Weight, Float32Weight, true>(job);
  }
}

// SIDE inputs of a column stand side by side.
template <class T, std::size_t SIDE, class ToFloat>
void gather_row(const T* column, std::size_t count, ToFloat to_float, float* out) {
  for (std::size_t k = 0; k < count; ++k) out[k] = to_float(column[k / SIDE * SIDE * PANEL + k % SIDE]);
}

void gather(const FloatMatrix& weight, const std::int64_t* ids, std::size_t count, float* out) {
  const std::size_t padded = padded_columns(weight);
  for (std::size_t i = 0; i < count; ++i, out += weight.columns) {
    const auto row = static_cast<std::size_t>(ids[i]);
    const std::size_t panel = row / PANEL * PANEL * padded;
    if (weight.bfloat16) {
      gather_row<bf16, 2>(static_cast<const bf16*>(weight.values) + panel + row % PANEL * 2, weight.columns, bf16_to_float, out);
    } else {
      gather_row<float, 1>(static_cast<const float*>(weight.values) + panel + row % PANEL, weight.columns,
                           [](float value) { return value; }, out);
    }
  }
}

}  // namespace

GemmFloatOps gemm_float_ops() { return {.linear = linear, .linear_coded = linear_coded, .gather = gather}; }

}  // namespace ramify::RAMIFY_ISA
