// Memory that an operator needs while it runs, kept by its thread for the next one.
#pragma once

#include <cstddef>

namespace ramify {

// At least `bytes`, at a multiple of 64; until this thread's next call.
void* scratch(std::size_t bytes);

}  // namespace ramify
