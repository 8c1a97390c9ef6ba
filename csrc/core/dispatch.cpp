#include "core/dispatch.h"

#include <stdexcept>

namespace ramify {

namespace portable { const Operators& operators(); }
#if defined(RAMIFY_X86)
namespace avx2 { const Operators& operators(); }
#endif
#if RAMIFY_WITH_AVX512
namespace avx512 { const Operators& operators(); }
namespace avx512bf16 { const Operators& operators(); }
#endif

namespace {

struct Variant {
  const char* name;
  const Operators* operators;
};

#if RAMIFY_WITH_AVX512
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

std::vector<Variant> find_variants() {
  std::vector<Variant> found{{"portable", &portable::operators()}};
#if defined(RAMIFY_X86)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (has_avx2) found.push_back({"avx2", &avx2::operators()});
#if RAMIFY_WITH_AVX512
  const bool emulated = has_avx2 && RAMIFY_EMULATED_AVX512;
  if (emulated || (has_avx2 && has_avx512())) found.push_back({"avx512", &avx512::operators()});
  if (emulated || (has_avx2 && has_avx512() && __builtin_cpu_supports("avx512bf16"))) {
    found.push_back({"avx512bf16", &avx512bf16::operators()});
  }
#endif
#endif
  return found;
}

const std::vector<Variant>& variants() {
  static const std::vector<Variant> found = find_variants();
  return found;
}

const Variant* chosen = nullptr;

const Variant& current() { return chosen != nullptr ? *chosen : variants().back(); }

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Variant& variant : variants()) names.emplace_back(variant.name);
  return names;
}

std::string isa() { return current().name; }

void set_isa(const std::string& name) {
  for (const Variant& variant : variants()) {
    if (name == variant.name) {
      chosen = &variant;
      return;
    }
  }
  throw std::invalid_argument("this processor does not run the variant " + name);
}

const Operators& operators() { return *current().operators; }

}  // namespace ramify
