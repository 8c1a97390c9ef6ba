// Which instruction set the operators use.
#pragma once

#include <string>
#include <vector>

#include "core/operators.h"

namespace ramify {

// Names of the variants that this build holds and this processor can run, the slowest first.
std::vector<std::string> available_isas();

// Name of the variant in use: the last available one unless `set_isa` chose another.
std::string isa();

// Throws std::invalid_argument for a variant that is not available.
void set_isa(const std::string& name);

// The variant in use.
const Operators& operators();

}  // namespace ramify
