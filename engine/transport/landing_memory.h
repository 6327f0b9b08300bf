// The pages of one landing region, and how they are taken out of use (README.md, "The fence").
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/base/result.h"

namespace tessera {

/// Move-only. Unmaps on destruction unless revoke() was called.
class LandingMemory final {
 public:
  /// Zeroed pages. Errors: RESOURCE_EXHAUSTED.
  [[nodiscard]] static Result<LandingMemory> create(int64_t num_bytes);
  ~LandingMemory();
  LandingMemory(LandingMemory&& other) noexcept;
  LandingMemory& operator=(LandingMemory&&) = delete;
  LandingMemory(const LandingMemory&) = delete;
  LandingMemory& operator=(const LandingMemory&) = delete;

  /// Keeps the addresses mapped, and from everyone, for as long as the process lives: what a late
  /// writer reaches there is not used by anyone. The pages take memory only where they are written.
  void revoke() noexcept;
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  LandingMemory(std::byte* data, int64_t num_bytes) : data_(data), num_bytes_(num_bytes) {}

  std::byte* data_;
  int64_t num_bytes_;
  bool is_revoked_ = false;
};

}  // namespace tessera
