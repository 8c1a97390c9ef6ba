// The table of operators that one instruction set fills: one entry a family, declared in the family's header.
#pragma once

#include "activation.h"
#include "attention.h"
#include "embedding.h"
#include "gemm_float.h"
#include "gemm_int.h"
#include "norm.h"
#include "rotary.h"
#include "sampling.h"

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
