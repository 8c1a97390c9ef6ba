#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {

void bind_norm(nb::module_& module) {
  module.def(
      "rms_norm",
      [](Address x, Address residual, Address weight, float eps, std::size_t rows, std::size_t size, Address sum, Address out) {
        operators().norm.rms_norm(pointer<const float>(x), pointer<const float>(residual), pointer<const float>(weight), eps,
                                  rows, size, pointer<float>(sum), pointer<float>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ramify
