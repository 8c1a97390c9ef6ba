// Single rows of an integer weight as floats.
#pragma once

#include "gemm/gemm_int.h"

namespace ramify::RAMIFY_ISA {

// out[i] = row ids[i] of the weight [columns].
void gather_rows(const IntMatrix& weight, const std::int64_t* ids, std::size_t count, float* out);

}  // namespace ramify::RAMIFY_ISA
