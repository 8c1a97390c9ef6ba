#include "operators.h"

namespace ramify::RAMIFY_ISA {

NormOps norm_ops();

const Operators& operators() {
  static const Operators table{
      .norm = norm_ops(),
  };
  return table;
}

}  // namespace ramify::RAMIFY_ISA
