#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "core/dispatch.h"
#include "core/thread_pool.h"

namespace ramify {

void bind_attention(nb::module_& module);
void bind_batch(nb::module_& module);
void bind_gemm_float(nb::module_& module);
void bind_norm(nb::module_& module);
void bind_gemm_int(nb::module_& module);
void bind_decoder(nb::module_& module);
void bind_layers(nb::module_& module);
void bind_sampling(nb::module_& module);

}  // namespace ramify

NB_MODULE(_native, module) {
  module.def("available_isas", &ramify::available_isas);
  module.def("isa", &ramify::isa);
  module.def("set_isa", &ramify::set_isa);
  module.def("num_threads", &ramify::num_threads);
  module.def("set_num_threads", &ramify::set_num_threads);
  ramify::bind_attention(module);
  ramify::bind_batch(module);
  ramify::bind_gemm_float(module);
  ramify::bind_norm(module);
  ramify::bind_gemm_int(module);
  ramify::bind_layers(module);
  ramify::bind_decoder(module);
  ramify::bind_sampling(module);
}
