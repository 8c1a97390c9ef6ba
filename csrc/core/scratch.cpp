#include "core/scratch.h"

#include <memory>
#include <new>

namespace ramify {
namespace {

constexpr std::align_val_t CACHE_LINE{64};

struct Release {
  void operator()(std::byte* memory) const { ::operator delete(memory, CACHE_LINE); }
};

}  // namespace

void* scratch(std::size_t bytes) {
  thread_local std::unique_ptr<std::byte, Release> memory;
  thread_local std::size_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = 0;
    memory.reset(static_cast<std::byte*>(::operator new(bytes, CACHE_LINE)));
    size = bytes;
  }
  return memory.get();
}

}  // namespace ramify
