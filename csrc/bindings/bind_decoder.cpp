#include <nanobind/stl/vector.h>

#include "bindings/bind_kv.h"
#include "bindings/bindings.h"
#include "layers/decoder.h"

namespace ramify {
namespace {

template <class Matrix>
void make_projection(Projection* projection, const Matrix& weight, Address bias, Address order) {
  new (projection) Projection{weight, pointer<const float>(bias), pointer<const std::int64_t>(order)};
}

void make_stack(DecoderStack* stack, std::size_t query_heads, std::size_t kv_heads, std::size_t head_dim, float scale, float eps) {
  new (stack) DecoderStack({query_heads, kv_heads, head_dim}, scale, eps);
}

void add_layer(DecoderStack& stack, Address attention_norm, const Projection& qkv, Address query_norm, Address key_norm,
               const Projection& output, Address mlp_norm, const Projection& gate_up, const Projection& down,
               std::size_t window) {
  stack.add_layer({pointer<const float>(attention_norm), qkv, pointer<const float>(query_norm),
                   pointer<const float>(key_norm), output, pointer<const float>(mlp_norm), gate_up, down, window});
}

void set_cache(DecoderStack& stack, const std::vector<nb::tuple>& layers) {
  std::vector<KVLayer> cache;
  for (const nb::tuple& layer : layers) cache.push_back(to_layer(layer));
  stack.set_cache(std::move(cache));
}

void run(DecoderStack& stack, const AttentionPlan& plan, Address x, std::size_t rows, Address cosines, Address sines,
         Address slots) {
  stack.run(plan, {pointer<float>(x), rows, pointer<const float>(cosines), pointer<const float>(sines),
                   pointer<const std::int64_t>(slots)});
}

}  // namespace

void bind_decoder(nb::module_& module) {
  nb::class_<Projection>(module, "Projection")
      .def("__init__", &make_projection<IntMatrix>)
      .def("__init__", &make_projection<FloatMatrix>);
  nb::class_<DecoderStack>(module, "DecoderStack")
      .def("__init__", &make_stack)
      .def("add_layer", &add_layer)
      .def("set_cache", &set_cache)
      .def("run", &run, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ramify
