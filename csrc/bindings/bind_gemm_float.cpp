#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {
namespace {

FloatProduct product(Address x, std::size_t count, Address bias, Address residual, Address out) {
  return {.x = pointer<const float>(x),
          .count = count,
          .bias = pointer<const float>(bias),
          .residual = pointer<const float>(residual),
          .out = pointer<float>(out)};
}

}  // namespace

void bind_gemm_float(nb::module_& module) {
  using Release = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<FloatMatrix>(module, "FloatMatrix")
      .def(
          "__init__",
          [](FloatMatrix* matrix, Address values, bool bfloat16, std::size_t rows, std::size_t columns) {
            new (matrix)
                FloatMatrix{.values = pointer<const void>(values), .bfloat16 = bfloat16, .rows = rows, .columns = columns};
          },
          nb::kw_only(), nb::arg("values"), nb::arg("bfloat16"), nb::arg("rows"), nb::arg("columns"));
  module.def(
      "linear_float",
      [](const FloatMatrix& weight, Address x, std::size_t count, Address bias, Address residual, Address out) {
        operators().gemm_float.linear(weight, product(x, count, bias, residual, out));
      },
      Release());
  module.def(
      "linear_coded",
      [](const IntMatrix& weight, Address x, std::size_t count, Address bias, Address residual, Address out) {
        operators().gemm_float.linear_coded(weight, product(x, count, bias, residual, out));
      },
      Release());
  module.def(
      "gather_float",
      [](const FloatMatrix& weight, Address ids, std::size_t count, Address out) {
        operators().gemm_float.gather(weight, pointer<const std::int64_t>(ids), count, pointer<float>(out));
      },
      Release());
}

}  // namespace ramify
