#include "core/operators.h"

#if defined(RAMIFY_ISA_avx512bf16)

namespace ramify {

namespace avx512 { const Operators& operators(); }

namespace avx512bf16 {

GemmFloatOps gemm_float_ops();

const Operators& operators() {
  static const Operators table = [] {
    Operators operators = avx512::operators();
    operators.gemm_float = gemm_float_ops();
    return operators;
  }();
  return table;
}

}  // namespace avx512bf16

}  // namespace ramify

#else

namespace ramify::RAMIFY_ISA {

AttentionOps attention_ops();
GemmFloatOps gemm_float_ops();
NormOps norm_ops();
GemmIntOps gemm_int_ops();
RotaryOps rotary_ops();
ActivationOps activation_ops();
EmbeddingOps embedding_ops();
SamplingOps sampling_ops();

const Operators& operators() {
  static const Operators table{
      .attention = attention_ops(),
      .gemm_float = gemm_float_ops(),
      .norm = norm_ops(),
      .gemm_int = gemm_int_ops(),
      .rotary = rotary_ops(),
      .activation = activation_ops(),
      .embedding = embedding_ops(),
      .sampling = sampling_ops(),
  };
  return table;
}

}  // namespace ramify::RAMIFY_ISA

#endif
