// What was sent to each rank of a peer. Written by the transport's thread, read by any.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/transport/kv_sender.h"

namespace tessera {

class LaneCounters final {
 public:
  explicit LaneCounters(size_t num_ranks) : lanes_(num_ranks) {}

  void add_posted(size_t rank, int64_t num_bytes) {
    const std::lock_guard lock(mutex_);
    lanes_[rank].posted_bytes += num_bytes;
  }
  void add_acked(size_t rank, int64_t num_bytes) {
    const std::lock_guard lock(mutex_);
    lanes_[rank].acked_bytes += num_bytes;
  }
  void set_lane(size_t rank, std::string lane) {
    const std::lock_guard lock(mutex_);
    lanes_[rank].lane = std::move(lane);
  }
  [[nodiscard]] std::vector<LaneStatistics> read() const {
    const std::lock_guard lock(mutex_);
    return lanes_;
  }

 private:
  mutable std::mutex mutex_;  // guards lanes_
  std::vector<LaneStatistics> lanes_;
};

}  // namespace tessera
