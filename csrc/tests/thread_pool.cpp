// The laws of the thread pool, as a program that sanitizers can watch: every item once, from any caller; an exception comes
// out of the loop and leaves the pool as it was; all threads count alike.
#include "core/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/scratch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr std::size_t ITEMS = 1000;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::exit(1);
}

bool every_item_runs_once() {
  std::vector<int> runs(ITEMS);
  ramify::parallel_for(ITEMS, 7, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ++runs[i];
  });
  return runs == std::vector<int>(ITEMS, 1);
}

void test_callers_at_once() {
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) right += every_item_runs_once() ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(right == 4 * 200, "loops of four callers at once run every item once");
}

void test_loops_inside_of_loops() {
  std::atomic<int> right{0};
  ramify::parallel_for(8, 1, [&](std::size_t, std::size_t) { right += every_item_runs_once() ? 1 : 0; });
  expect(right == 8, "loops inside of a loop run every item once");
}

// Each thread waits until the other has an item too, so that the one that fails is the caller or, the other time, a worker.
void test_failure_of(bool of_caller) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> inside{0}, ended{0};
  bool caught = false;
  try {
    ramify::parallel_for(ITEMS, 1, [&](std::size_t, std::size_t) {
      ++inside;
      while (inside < 2) std::this_thread::yield();
      if ((std::this_thread::get_id() == caller) == of_caller) throw std::runtime_error("of an item");
      ++ended;
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  expect(caught, of_caller ? "an exception of the caller's item comes out" : "an exception of a worker's item comes out");
  expect(ended < static_cast<int>(ITEMS), "items that had not begun are left out");
  expect(every_item_runs_once(), "the pool runs loops after an exception");
}

void test_failure_of_all() {
  for (int repeat = 0; repeat < 200; ++repeat) {
    bool caught = false;
    try {
      ramify::parallel_for(ITEMS, 1, [](std::size_t, std::size_t) { throw std::runtime_error("of an item"); });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    expect(caught, "of the exceptions of several threads one comes out");
  }
}

void test_memory_that_is_not_there() {
  bool caught = false;
  try {
    ramify::parallel_for(2, 1, [](std::size_t, std::size_t) { ramify::scratch(std::numeric_limits<std::size_t>::max() / 4); });
  } catch (const ramify::OutOfMemory&) {
    caught = true;
  }
  expect(caught, "memory that is not there comes out as such");
  expect(ramify::scratch(64) != nullptr, "there is memory after a request that failed");
}

void test_change_of_threads() {
  for (int count : {1, 3, 2, 4, 2}) {
    ramify::set_num_threads(count);
    expect(every_item_runs_once(), "every item runs once after a change of the threads");
  }
}

void test_all_threads_count_alike() {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x40);
  const unsigned flushing = _mm_getcsr();
  std::atomic<int> inside{0}, lost{0};
  ramify::parallel_for(16, 1, [&](std::size_t, std::size_t) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
    const volatile float tiny = 1e-40f;
    if (tiny * 0.5f == 0.0f) ++lost;
  });
  expect(lost == 0, "no thread takes subnormal numbers for zero");
  expect(_mm_getcsr() >> 6 == flushing >> 6, "the caller's mode is its own again");
  _mm_setcsr(before);
#endif
}

}  // namespace

int main() {
  ramify::set_num_threads(2);
  expect(every_item_runs_once(), "every item runs once");
  test_callers_at_once();
  test_loops_inside_of_loops();
  test_failure_of(true);
  test_failure_of(false);
  test_failure_of_all();
  test_memory_that_is_not_there();
  test_change_of_threads();
  test_all_threads_count_alike();
  std::puts("the thread pool keeps its laws");
}
