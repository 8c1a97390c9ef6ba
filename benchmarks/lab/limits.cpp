// What the cores can do at most: integer and float dot products from registers, and reading memory. Prints JSON.
//
//   limits THREADS
//
// The best of several short runs counts. Operations are counted as multiplications and additions.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int ACCUMULATORS = 10;  // independent sums: enough to hide the latency of a multiply-add, few enough to stay
constexpr long ROUNDS = 4'000'000;  // in registers with the operands
constexpr int REPEATS = 5;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One step of a dot product: an accumulator, two operands, and the operations it counts as.
#if defined(__AVX512F__)
struct Float {
  using Vector = __m512;
  static constexpr double operations = 32;
  static Vector make(float x) { return _mm512_set1_ps(x); }
  static Vector step(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
};
#elif defined(__AVX2__)
struct Float {
  using Vector = __m256;
  static constexpr double operations = 16;
  static Vector make(float x) { return _mm256_set1_ps(x); }
  static Vector step(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }
};
#endif

#if defined(__AVX512VNNI__)
struct Int8 {
  using Vector = __m512i;
  static constexpr double operations = 128;
  static Vector make(float x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static Vector step(Vector sum, Vector a, Vector b) { return _mm512_dpbusd_epi32(sum, a, b); }
};
#elif defined(__AVX2__)
struct Int8 {
  using Vector = __m256i;
  static constexpr double operations = 64;
  static Vector make(float x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static Vector step(Vector sum, Vector a, Vector b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
  }
};
#endif

#if defined(__AVX512BF16__)
struct BFloat16 {
  using Vector = __m512;
  static constexpr double operations = 64;
  static Vector make(float x) { return _mm512_set1_ps(x); }
  static Vector step(Vector sum, Vector a, Vector b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};
#endif

template <class Kind>
void multiply() {
  typename Kind::Vector sums[ACCUMULATORS];
  for (auto& sum : sums) sum = Kind::make(0);
  auto a = Kind::make(1);
  const auto b = Kind::make(2);
  for (long round = 0; round < ROUNDS; ++round) {
#pragma GCC unroll 16
    for (auto& sum : sums) {
      sum = Kind::step(sum, a, b);
      asm volatile("" : "+x"(a));  // as if it changed: the compiler may neither join the steps nor drop them
    }
  }
  for (auto& sum : sums) asm volatile("" : : "x"(sum));
}

template <class Work>
double seconds_of(int threads, Work work) {
  double best = 1e9;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    std::vector<std::thread> others;
    const double started = now();
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
    for (auto& other : others) other.join();
    best = std::min(best, now() - started);
  }
  return best;
}

template <class Kind>
double giga_operations(int threads) {
  const double operations = Kind::operations * ACCUMULATORS * static_cast<double>(ROUNDS) * threads;
  return operations / seconds_of(threads, [](int) { multiply<Kind>(); }) / 1e9;
}

double read_gigabytes(int threads) {
  constexpr std::size_t SIZE = std::size_t{256} << 20;  // for each thread: far more than any cache holds
  std::vector<std::unique_ptr<char, decltype(&std::free)>> areas;
  for (int thread = 0; thread < threads; ++thread) {
    areas.emplace_back(static_cast<char*>(std::aligned_alloc(64, SIZE)), &std::free);
    std::memset(areas.back().get(), 1, SIZE);
  }
  const double seconds = seconds_of(threads, [&](int thread) {
    const char* area = areas[thread].get();
    __m256i sums[8] = {};
    for (std::size_t at = 0; at < SIZE; at += 256) {
      _mm_prefetch(area + at + 4096, _MM_HINT_T0);
      _mm_prefetch(area + at + 4160, _MM_HINT_T0);
      _mm_prefetch(area + at + 4224, _MM_HINT_T0);
      _mm_prefetch(area + at + 4288, _MM_HINT_T0);
      for (int i = 0; i < 8; ++i)
        sums[i] = _mm256_add_epi32(sums[i], _mm256_load_si256(reinterpret_cast<const __m256i*>(area + at) + i));
    }
    for (auto& sum : sums) asm volatile("" : : "x"(sum));
  });
  return static_cast<double>(SIZE) * threads / seconds / 1e9;
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  if (threads < 1) return 1;
  std::printf("{\"int8_gops\": %.1f, \"float32_gflops\": %.1f, ", giga_operations<Int8>(threads), giga_operations<Float>(threads));
#if defined(__AVX512BF16__)
  std::printf("\"bfloat16_gflops\": %.1f, ", giga_operations<BFloat16>(threads));
#endif
  std::printf("\"read_gb_s\": %.2f}\n", read_gigabytes(threads));
}
