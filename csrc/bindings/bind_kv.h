// The cache of one layer as Python hands it over.
#pragma once

#include "bindings/bindings.h"
#include "attention/kv_types.h"

namespace ramify {

// (keys, values, key scales, value scales, KV heads, blocks, block size, head dimension, type): `KVLayer.native_arguments`.
inline KVLayer to_layer(const nb::tuple& t) {
  return {pointer<void>(nb::cast<Address>(t[0])),
          pointer<void>(nb::cast<Address>(t[1])),
          pointer<float>(nb::cast<Address>(t[2])),
          pointer<float>(nb::cast<Address>(t[3])),
          nb::cast<std::size_t>(t[4]),
          nb::cast<std::size_t>(t[5]),
          nb::cast<std::size_t>(t[6]),
          nb::cast<std::size_t>(t[7]),
          static_cast<KVType>(nb::cast<int>(t[8]))};
}

}  // namespace ramify
