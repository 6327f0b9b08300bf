// Which rings of a window cache are taken (kernels/ops/latent_window.h). A RingHandle is the one
// owner of a ring and gives it back when it dies. Engine thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops/latent_window.h"

namespace tessera {

class RingPool;

/// One sequence's ring, or none. Must not outlive its pool.
class RingHandle final {
 public:
  RingHandle() noexcept = default;
  ~RingHandle() { reset(); }
  RingHandle(const RingHandle&) = delete;
  RingHandle& operator=(const RingHandle&) = delete;
  RingHandle(RingHandle&& other) noexcept;
  RingHandle& operator=(RingHandle&& other) noexcept;

  [[nodiscard]] bool is_valid() const noexcept { return pool_ != nullptr; }
  [[nodiscard]] int64_t id() const noexcept { return id_; }
  /// Slot of the ring's first row.
  [[nodiscard]] int64_t first_slot() const noexcept;
  /// Where a step that ends with `num_tokens` tokens of context writes the row of the token at
  /// `position`; -1: that token is not in the window then.
  [[nodiscard]] int64_t slot(int64_t position, int64_t num_tokens) const noexcept;
  void reset() noexcept;

 private:
  friend class RingPool;
  RingHandle(RingPool* pool, int64_t id) noexcept : pool_(pool), id_(id) {}

  RingPool* pool_ = nullptr;
  int64_t id_ = -1;
};

class RingPool final {
 public:
  RingPool(const kernels::WindowRing& ring, int64_t num_rings);
  ~RingPool();
  RingPool(const RingPool&) = delete;
  RingPool& operator=(const RingPool&) = delete;

  /// A ring that nobody holds, of any content. One is free: the caller knows of every holder.
  [[nodiscard]] RingHandle take();

  [[nodiscard]] int64_t num_free() const noexcept { return static_cast<int64_t>(free_.size()); }

 private:
  friend class RingHandle;
  const kernels::WindowRing ring_;
  const int64_t num_rings_;
  std::vector<int64_t> free_;  // the last is taken first
};

}  // namespace tessera
