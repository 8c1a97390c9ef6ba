// What every binding needs. Tensors come as addresses; the Python side has checked dtype, shape and contiguity.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace ramify {

namespace nb = nanobind;

using Address = std::uintptr_t;  // 0 stands for a tensor that is left out

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace ramify
