#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {

void bind_gemm_int(nb::module_& module) {
  nb::class_<IntMatrix>(module, "IntMatrix")
      .def(
          "__init__",
          [](IntMatrix* matrix, Address codes, Address scales, Address mins, Address factors, bool half_scales,
             bool half_mins, std::size_t bits, std::size_t rows, std::size_t columns, std::size_t padded_columns, std::size_t group,
             std::size_t activation_group) {
            new (matrix) IntMatrix{.codes = pointer<const std::uint8_t>(codes),
                                   .scales = pointer<const void>(scales),
                                   .mins = pointer<const void>(mins),
                                   .factors = pointer<const std::uint16_t>(factors),
                                   .half_scales = half_scales,
                                   .half_mins = half_mins,
                                   .bits = bits,
                                   .rows = rows,
                                   .columns = columns,
                                   .padded_columns = padded_columns,
                                   .group = group,
                                   .activation_group = activation_group};
          },
          nb::kw_only(), nb::arg("codes"), nb::arg("scales"), nb::arg("mins"), nb::arg("factors"),
          nb::arg("half_scales"), nb::arg("half_mins"), nb::arg("bits"), nb::arg("rows"), nb::arg("columns"), nb::arg("padded_columns"),
          nb::arg("group"), nb::arg("activation_group"));
  module.def(
      "linear_int",
      [](const IntMatrix& weight, Address x, std::size_t count, Address bias, Address residual, Address out) {
        operators().gemm_int.linear(weight, pointer<const float>(x), count, pointer<const float>(bias),
                                    pointer<const float>(residual), pointer<float>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "gather_int",
      [](const IntMatrix& weight, Address ids, std::size_t count, Address out) {
        operators().gemm_int.gather(weight, pointer<const std::int64_t>(ids), count, pointer<float>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ramify
