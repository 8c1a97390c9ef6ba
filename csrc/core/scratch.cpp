#include "core/scratch.h"

#include <cstdio>
#include <cstring>

namespace ramify {
namespace {

constexpr std::align_val_t CACHE_LINE{64};

}  // namespace

OutOfMemory::OutOfMemory(std::size_t bytes) noexcept {
  std::snprintf(words_, sizeof(words_), "no memory for the %zu bytes that an operator works in: give it fewer rows at once, or free memory", bytes);
}

void Scratch::Release::operator()(std::byte* memory) const { ::operator delete(memory, CACHE_LINE); }

void* Scratch::get(std::size_t bytes) {
  if (bytes <= size_) return memory_.get();
  memory_.reset();
  size_ = 0;
  memory_.reset(static_cast<std::byte*>(::operator new(bytes, CACHE_LINE, std::nothrow)));
  if (memory_ == nullptr) throw OutOfMemory(bytes);
  std::memset(memory_.get(), 0, bytes);
  size_ = bytes;
  return memory_.get();
}

void* scratch(std::size_t bytes) {
  thread_local Scratch memory;
  return memory.get(bytes);
}

}  // namespace ramify
