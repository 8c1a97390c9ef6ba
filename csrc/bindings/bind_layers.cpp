// Bindings of what stands between the matrix products of a layer.
#include "bindings/bind_kv.h"
#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {
namespace {

void place_heads(Address qkv, Address query_norm, Address key_norm, float eps, Address cosines, Address sines,
                 Address slots, std::size_t rows, std::size_t query_heads, std::size_t kv_heads, std::size_t head_dim,
                 const nb::tuple& layer, Address queries) {
  const HeadsInput input{pointer<const float>(qkv),     pointer<const float>(query_norm), pointer<const float>(key_norm),
                         eps,                           pointer<const float>(cosines),    pointer<const float>(sines),
                         pointer<const std::int64_t>(slots)};
  const KVLayer cache = to_layer(layer);
  nb::gil_scoped_release release;
  operators().rotary.place_heads(input, {query_heads, kv_heads, head_dim}, rows, cache, pointer<float>(queries));
}

void silu_and_multiply(Address x, std::size_t rows, std::size_t size, Address out) {
  operators().activation.silu_and_multiply(pointer<const float>(x), rows, size, pointer<float>(out));
}

void gather(Address table, bool bfloat16, Address ids, std::size_t count, std::size_t size, Address out) {
  operators().embedding.gather(pointer<const void>(table), bfloat16, pointer<const std::int64_t>(ids), count, size,
                               pointer<float>(out));
}

}  // namespace

void bind_layers(nb::module_& module) {
  module.def("place_heads", &place_heads);
  module.def("silu_and_multiply", &silu_and_multiply, nb::call_guard<nb::gil_scoped_release>());
  module.def("gather", &gather, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ramify
