// The table of operators that one instruction set fills: one entry a family, declared in the family's header.
#pragma once

#include "norm.h"

namespace ramify {

struct Operators {
  NormOps norm;
};

}  // namespace ramify
