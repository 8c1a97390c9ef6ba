// Loops that are gone when the compiler decides what stays in registers.
#pragma once

#include <cstddef>
#include <utility>

#define RAMIFY_INLINE __attribute__((always_inline))

namespace ramify::RAMIFY_ISA {

// Calls each(0), ... each(N - 1) with constants. `each` is a lambda marked RAMIFY_INLINE.
template <std::size_t N, class Each>
RAMIFY_INLINE inline void unrolled(Each each) {
  [&]<std::size_t... I>(std::index_sequence<I...>) RAMIFY_INLINE {
    (each(std::integral_constant<std::size_t, I>()), ...);
  }(std::make_index_sequence<N>());
}

}  // namespace ramify::RAMIFY_ISA
