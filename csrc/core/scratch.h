// Memory that operators need while they run, kept for the next call.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace ramify {

// There is no memory for an operator's work: MemoryError in Python. The words are held inside, since nothing can be allocated.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::size_t bytes) noexcept;
  const char* what() const noexcept override { return words_; }

 private:
  char words_[160];
};

class Scratch {
 public:
  // At least `bytes`, at a multiple of 64, until the next call; zeros wherever it grows. Throws OutOfMemory.
  void* get(std::size_t bytes);

 private:
  struct Release {
    void operator()(std::byte* memory) const;
  };

  std::unique_ptr<std::byte, Release> memory_;
  std::size_t size_ = 0;
};

// Memory of the calling thread, until its next call.
void* scratch(std::size_t bytes);

}  // namespace ramify
