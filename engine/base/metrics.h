// Lock-free counters, gauges and histograms. Owned by the part that counts; the server reads them
// for /metrics. Any thread may read while one or more threads write.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tessera {

class Counter final {
 public:
  void add(int64_t amount = 1) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

class Gauge final {
 public:
  void set(int64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
  void add(int64_t amount) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

/// Seconds from 100 us to 10 minutes, roughly doubling.
class LatencyHistogram final {
 public:
  static constexpr std::array<double, 23> kUpperBounds = {
      0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05,  0.075, 0.1,
      0.2,    0.3,    0.5,    1.0,   2.0,   5.0,   10.0, 30.0, 60.0, 120.0, 600.0};

  void observe(double seconds) noexcept;
  /// Observations in bucket i (not cumulative); i == kUpperBounds.size() is the overflow.
  [[nodiscard]] int64_t bucket(size_t i) const noexcept {
    return buckets_[i].load(std::memory_order_relaxed);
  }
  [[nodiscard]] double sum() const noexcept { return sum_.load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<int64_t>, kUpperBounds.size() + 1> buckets_{};
  std::atomic<double> sum_{0.0};
};

}  // namespace tessera
