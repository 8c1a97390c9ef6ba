#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {
namespace {

void draw_tokens(Address logits, std::size_t rows, std::size_t size, Address parameters, Address tokens) {
  operators().sampling.draw_tokens(pointer<const float>(logits), rows, size, pointer<const DrawParameters>(parameters),
                                   pointer<std::int64_t>(tokens));
}

void describe_tokens(Address logits, std::size_t rows, std::size_t size, Address tokens, std::size_t num_top,
                     Address logprobs, Address means, Address ranks, Address top_ids, Address top_logprobs) {
  const Descriptions out{pointer<float>(logprobs),       pointer<float>(means),        pointer<std::int64_t>(ranks),
                         pointer<std::int64_t>(top_ids), pointer<float>(top_logprobs), num_top};
  operators().sampling.describe_tokens(pointer<const float>(logits), rows, size, pointer<const std::int64_t>(tokens), out);
}

}  // namespace

void bind_sampling(nb::module_& module) {
  module.def("draw_tokens", &draw_tokens, nb::call_guard<nb::gil_scoped_release>());
  module.def("describe_tokens", &describe_tokens, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ramify
