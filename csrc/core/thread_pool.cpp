// The caller works along and never waits for a thread that has not begun: a worker that sleeps, or whose core was
// taken away, costs its help and nothing else.
#include "core/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ramify {
namespace {

// Operators of one step follow each other within microseconds; beyond that a worker sleeps.
constexpr auto SPIN_TIME = std::chrono::microseconds(60);
constexpr int SPINS_BETWEEN_CLOCKS = 64;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// While a loop runs, its threads round to nearest and take no number for zero, whatever mode they are in (that of a worker
// is its creator's): a sum is the same on every thread.
class PlainNumbers {
#if defined(__x86_64__)
 public:
  PlainNumbers() : before_(_mm_getcsr()) {
    if ((before_ & MODES) != 0) _mm_setcsr(before_ & ~MODES);
  }
  ~PlainNumbers() {
    if ((before_ & MODES) != 0) _mm_setcsr(before_);
  }
  PlainNumbers(const PlainNumbers&) = delete;
  PlainNumbers& operator=(const PlainNumbers&) = delete;

 private:
  static constexpr unsigned MODES = _MM_FLUSH_ZERO_MASK | 0x40 /* subnormal inputs are zero */ | _MM_ROUND_MASK;
  unsigned before_;
#endif
};

class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      stop();
      throw std::runtime_error("cannot start " + std::to_string(threads - 1) + " threads for the operators (" + error.what() +
                               "): ask for fewer threads");
    } catch (...) {
      stop();
      throw;
    }
  }

  ~Pool() { stop(); }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Rethrows the first exception of a body, once no thread is in one; ranges that had not begun by then are left out.
  void run(std::size_t items, std::size_t grain, detail::LoopBody body, void* context) {
    items_ = items;
    grain_ = grain;
    body_ = body;
    context_ = context;
    next_.store(0);
    open_.store(true);
    publish();
    take_items();
    open_.store(false);
    while (inside_.load() != 0) relax();  // each of them is busy with its last range
    failed_.store(false);
    if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  // A worker that comes inside while the loop is open may read it: the caller closes first and then waits for those
  // inside, the worker comes inside first and then looks whether it is open.
  void help() {
    inside_.fetch_add(1);
    if (open_.load()) take_items();
    inside_.fetch_sub(1);
  }

  void take_items() {
    [[maybe_unused]] const PlainNumbers plain{};
    try {
      while (!failed_.load()) {
        const std::size_t begin = next_.fetch_add(grain_);
        if (begin >= items_) return;
        body_(context_, begin, std::min(begin + grain_, items_));
      }
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  void stop() {
    stopping_.store(true);
    publish();
    for (auto& worker : workers_) worker.join();
  }

  void publish() {
    epoch_.fetch_add(1);
    if (sleeping_.load() != 0) epoch_.notify_all();
  }

  void work() {
    std::uint32_t seen = 0;
    while (!stopping_.load()) {
      seen = wait_after(seen);
      help();
    }
  }

  std::uint32_t wait_after(std::uint32_t seen) {
    const auto give_up = std::chrono::steady_clock::now() + SPIN_TIME;
    do {
      for (int i = 0; i < SPINS_BETWEEN_CLOCKS; ++i) {
        if (epoch_.load() != seen) return epoch_.load();
        relax();
      }
    } while (std::chrono::steady_clock::now() < give_up);
    sleeping_.fetch_add(1);
    epoch_.wait(seen);
    sleeping_.fetch_sub(1);
    return epoch_.load();
  }

  std::vector<std::thread> workers_;
  std::size_t items_ = 0;
  std::size_t grain_ = 1;
  detail::LoopBody body_ = nullptr;
  void* context_ = nullptr;
  std::exception_ptr failure_;  // written by the thread that sets failed_, read when all have left
  alignas(64) std::atomic<std::size_t> next_{0};
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<int> inside_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> open_{false};
  std::atomic<bool> failed_{false};
  std::atomic<bool> stopping_{false};
};

std::atomic<bool> busy{false};  // while the pool runs a loop

// The caller's hold of the pool.
struct Turn {
  Turn() = default;
  ~Turn() { busy.store(false); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
};

Pool* pool = nullptr;
std::atomic<int> wanted{1};

// A forked child has none of its parent's threads: it starts a pool of its own, and lets the parent's be.
void forget_pool() {
  pool = nullptr;
  busy.store(false);
}

void prepare_pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
  if (pool != nullptr && pool->threads() == wanted.load()) return;
  delete std::exchange(pool, nullptr);
  pool = new Pool(wanted.load());
}

}  // namespace

void set_num_threads(int count) { wanted.store(std::max(1, count)); }

int num_threads() { return wanted.load(); }

void detail::run_loop(std::size_t items, std::size_t grain, LoopBody body, void* context) {
  grain = std::max<std::size_t>(1, grain);
  if (items <= grain || wanted.load() == 1 || busy.exchange(true)) {
    [[maybe_unused]] const PlainNumbers plain{};
    for (std::size_t begin = 0; begin < items; begin += grain) body(context, begin, std::min(begin + grain, items));
    return;
  }
  const Turn turn;
  prepare_pool();
  pool->run(items, grain, body, context);
}

}  // namespace ramify
