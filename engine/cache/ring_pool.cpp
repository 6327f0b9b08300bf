#include "engine/cache/ring_pool.h"

#include <utility>

#include "engine/base/check.h"

namespace tessera {

RingHandle::RingHandle(RingHandle&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, -1)) {}

RingHandle& RingHandle::operator=(RingHandle&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    id_ = std::exchange(other.id_, -1);
  }
  return *this;
}

int64_t RingHandle::first_slot() const noexcept {
  return id_ * pool_->ring_.rows_per_sequence();
}

int64_t RingHandle::slot(int64_t position, int64_t num_tokens) const noexcept {
  const kernels::WindowRing& ring = pool_->ring_;
  return ring.is_kept(position, num_tokens) ? first_slot() + ring.row(position) : -1;
}

void RingHandle::reset() noexcept {
  if (pool_ != nullptr) {
    pool_->free_.push_back(id_);  // room for all was reserved
    pool_ = nullptr;
    id_ = -1;
  }
}

RingPool::RingPool(const kernels::WindowRing& ring, int64_t num_rings)
    : ring_(ring), num_rings_(num_rings) {
  free_.reserve(static_cast<size_t>(num_rings));
  for (int64_t id = num_rings - 1; id >= 0; --id) {
    free_.push_back(id);
  }
}

RingPool::~RingPool() {
  TESSERA_DCHECK(num_free() == num_rings_, "a ring outlives its pool");
}

RingHandle RingPool::take() {
  TESSERA_CHECK(!free_.empty(), "more sequences run than there are rings");
  const int64_t id = free_.back();
  free_.pop_back();
  return {this, id};
}

}  // namespace tessera
