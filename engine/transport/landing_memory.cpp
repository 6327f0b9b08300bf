#include "engine/transport/landing_memory.h"

#include <utility>

#include <sys/mman.h>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {

Result<LandingMemory> LandingMemory::create(int64_t num_bytes) {
  void* pages = mmap(nullptr,
                     static_cast<size_t>(num_bytes),
                     PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS,
                     -1,
                     0);
  if (pages == MAP_FAILED) {
    return resource_exhausted(str_cat("no memory for a landing region of ", num_bytes, " bytes"));
  }
  // Larger pages make the copies cheaper; a kernel that has none is as right.
  static_cast<void>(madvise(pages, static_cast<size_t>(num_bytes), MADV_HUGEPAGE));
  return LandingMemory(static_cast<std::byte*>(pages), num_bytes);
}

LandingMemory::LandingMemory(LandingMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      num_bytes_(other.num_bytes_),
      is_revoked_(other.is_revoked_) {}

LandingMemory::~LandingMemory() {
  if (data_ != nullptr && !is_revoked_) {
    munmap(data_, static_cast<size_t>(num_bytes_));
  }
}

void LandingMemory::revoke() noexcept {
  is_revoked_ = true;
  // Only gives memory back; should it fail, the addresses are as far from use.
  static_cast<void>(madvise(data_, static_cast<size_t>(num_bytes_), MADV_NOHUGEPAGE));
  static_cast<void>(madvise(data_, static_cast<size_t>(num_bytes_), MADV_DONTNEED));
}

}  // namespace tessera
