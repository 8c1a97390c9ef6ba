// The table of operators that one instruction set fills: one entry a family, declared in the family's header.
#pragma once

#include "layers/activation.h"
#include "attention/attention.h"
#include "layers/embedding.h"
#include "gemm/gemm_float.h"
#include "gemm/gemm_int.h"
#include "layers/norm.h"
#include "layers/rotary.h"
#include "sampling/sampling.h"

namespace ramify {

struct Operators {
  AttentionOps attention;
  GemmFloatOps gemm_float;
  NormOps norm;
  GemmIntOps gemm_int;
  RotaryOps rotary;
  ActivationOps activation;
  EmbeddingOps embedding;
  SamplingOps sampling;
};

}  // namespace ramify
