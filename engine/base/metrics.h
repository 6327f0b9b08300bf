// Lock-free counters, gauges and histograms. Owned by the part that counts; the server reads them
// for /metrics. Any thread may read while one or more threads write.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

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

/// Counts observations under bounds that are given once. Of no kind by itself: see below.
class Histogram {
 public:
  static constexpr size_t kMaxBounds = 32;

  /// Observations in bucket i (not cumulative); i == upper_bounds().size() is the overflow.
  [[nodiscard]] int64_t bucket(size_t i) const noexcept {
    return buckets_[i].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::span<const double> upper_bounds() const noexcept { return upper_bounds_; }
  /// Of all observations so far.
  [[nodiscard]] int64_t count() const noexcept;
  [[nodiscard]] double sum() const noexcept { return sum_.load(std::memory_order_relaxed); }
  void observe(double value) noexcept;

 protected:
  /// Ascending, at most kMaxBounds, and of static lifetime.
  explicit Histogram(std::span<const double> upper_bounds) noexcept : upper_bounds_(upper_bounds) {}

 private:
  const std::span<const double> upper_bounds_;
  std::array<std::atomic<int64_t>, kMaxBounds + 1> buckets_{};
  std::atomic<double> sum_{0.0};
};

/// Seconds from 100 us to 40 minutes, roughly doubling.
class LatencyHistogram final : public Histogram {
 public:
  static constexpr std::array<double, 26> kUpperBounds = {
      0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05,  0.075, 0.1,   0.2,
      0.3,    0.5,    1.0,    2.0,   5.0,   10.0,  20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 2400.0};

  LatencyHistogram() noexcept : Histogram(kUpperBounds) {}
};

/// Numbers of tokens, requests or parcels, from 1 to 200,000.
class CountHistogram final : public Histogram {
 public:
  static constexpr std::array<double, 17> kUpperBounds = {
      1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};

  CountHistogram() noexcept : Histogram(kUpperBounds) {}
};

/// Bytes from 4 KiB to 64 GiB, each four times the last.
class ByteHistogram final : public Histogram {
 public:
  static constexpr std::array<double, 13> kUpperBounds = {4096.0,
                                                          16384.0,
                                                          65536.0,
                                                          262144.0,
                                                          1048576.0,
                                                          4194304.0,
                                                          16777216.0,
                                                          67108864.0,
                                                          268435456.0,
                                                          1073741824.0,
                                                          4294967296.0,
                                                          17179869184.0,
                                                          68719476736.0};

  ByteHistogram() noexcept : Histogram(kUpperBounds) {}
};

}  // namespace tessera
