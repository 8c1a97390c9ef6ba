#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "attention/attention.h"
#include "bindings/bind_kv.h"
#include "bindings/bindings.h"
#include "core/dispatch.h"

namespace ramify {
namespace {

AttentionPlan make_plan(std::size_t spans, Address query_start, Address first_position, Address table_start, Address blocks,
                        Address path_start, Address path, std::size_t block_size, std::size_t group, std::size_t kv_heads) {
  const AttentionBatch batch{spans,
                             pointer<const std::int64_t>(query_start),
                             pointer<const std::int64_t>(first_position),
                             pointer<const std::int64_t>(table_start),
                             pointer<const std::int32_t>(blocks),
                             pointer<const std::int64_t>(path_start),
                             pointer<const std::int32_t>(path)};
  return AttentionPlan(batch, {block_size, group, kv_heads});
}

void attend(const AttentionPlan& plan, const nb::tuple& layer, Address query, std::size_t query_stride, Address out, float scale,
            std::size_t window, Address block_scores) {
  const AttentionCall call{pointer<const float>(query), query_stride, pointer<float>(out), to_layer(layer),
                           scale, window, pointer<float>(block_scores)};
  if (static_cast<std::size_t>(plan.largest_block) >= call.layer.blocks) {
    throw std::invalid_argument("attention: a block table names block " + std::to_string(plan.largest_block) + " of " +
                                std::to_string(call.layer.blocks));
  }
  nb::gil_scoped_release release;
  operators().attention.attend(plan, call);
}

void store(const nb::tuple& layer, Address keys, Address values, std::size_t key_stride, std::size_t value_stride, Address slots,
           std::size_t tokens) {
  const KVLayer to = to_layer(layer);
  nb::gil_scoped_release release;
  operators().attention.store(to, pointer<const float>(keys), pointer<const float>(values), key_stride, value_stride,
                              pointer<const std::int64_t>(slots), tokens);
}

}  // namespace

void bind_attention(nb::module_& module) {
  nb::class_<AttentionPlan>(module, "AttentionPlan")
      .def_prop_ro("max_blocks", [](const AttentionPlan& plan) { return plan.max_blocks; })
      .def_prop_ro("items", [](const AttentionPlan& plan) {
        std::size_t items = 0;
        for (const AttentionWave& wave : plan.waves) items += wave.items.size();
        return items;
      });
  module.def("plan_attention", &make_plan);
  module.def("attend", &attend);
  module.def("store_kv", &store);
}

}  // namespace ramify
