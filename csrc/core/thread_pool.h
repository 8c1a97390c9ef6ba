// A pool of threads that share the items of a loop. Which thread runs an item never changes what the item computes.
#pragma once

#include <cstddef>
#include <type_traits>

namespace ramify {

// Threads that later loops use, the calling one included; at least 1. Not to be called while a loop runs.
void set_num_threads(int count);
int num_threads();

namespace detail {
using LoopBody = void (*)(void* context, std::size_t begin, std::size_t end);
void run_loop(std::size_t items, std::size_t grain, LoopBody body, void* context);
}  // namespace detail

// Calls body(begin, end) for disjoint ranges that cover [0, items), each of at most `grain` items, and returns when all
// are done. A loop inside of a loop, or beside that of another thread, runs on its own thread alone. The first exception of
// a body comes out of the call, when no thread is in a body any more; ranges that had not begun are left out then.
template <class Body>
void parallel_for(std::size_t items, std::size_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::run_loop(
      items, grain, [](void* context, std::size_t begin, std::size_t end) { (*static_cast<Plain*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace ramify
