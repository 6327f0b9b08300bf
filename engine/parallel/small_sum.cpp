#include "engine/parallel/small_sum.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "engine/base/log.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmups = 5;
constexpr int kCalls = 100;
constexpr int kRepeats = 5;
constexpr int64_t kLeastElements = 2048;

/// Seconds of a call on rank 0, the least of several means: what else goes on only makes it longer.
class Timer final {
 public:
  Timer(const std::vector<kernels::Device*>& devices,
        int64_t max_elements,
        const std::function<void()>& abort)
      : devices_(devices), abort_(abort) {
    const auto bytes = max_elements * static_cast<int64_t>(sizeof(float));
    const std::vector<float> zeros(static_cast<size_t>(max_elements));
    for (kernels::Device* device : devices) {
      buffers_.push_back(device->allocate(bytes));
      device->copy_from_host(buffers_.back().data(), zeros.data(), bytes, {});
      device->synchronize_blocking({});
    }
  }

  double seconds_blocking(const RankSum& sum, int64_t count) {
    std::vector<double> seconds(devices_.size());
    std::vector<std::exception_ptr> failures(devices_.size());
    {
      std::vector<std::jthread> ranks;
      for (size_t rank = 0; rank < devices_.size(); ++rank) {
        ranks.emplace_back([&, rank] {
          try {
            seconds[rank] = run_rank(sum, rank, count);
          } catch (...) {
            failures[rank] = std::current_exception();
            abort_();
          }
        });
      }
    }
    const auto failed = std::find_if(
        failures.begin(), failures.end(), [](const auto& failure) { return failure != nullptr; });
    if (failed != failures.end()) {
      std::rethrow_exception(*failed);
    }
    return seconds.front();
  }

 private:
  /// In a graph, as decode steps run it: the host's part is not counted.
  double run_rank(const RankSum& sum, size_t rank, int64_t count) {
    kernels::Device& device = *devices_[rank];
    const auto call = [&](int times) {
      for (int i = 0; i < times; ++i) {
        sum(static_cast<int>(rank), static_cast<float*>(buffers_[rank].data()), count, {});
      }
    };
    call(kWarmups);
    device.synchronize_blocking({});
    const auto graph = device.record({}, [&] { call(kCalls); });
    double least = 1.0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const Clock::time_point before = Clock::now();
      graph->launch({});
      device.synchronize_blocking({});
      const double seconds = std::chrono::duration<double>(Clock::now() - before).count();
      least = std::min(least, seconds / kCalls);
    }
    return least;
  }

  const std::vector<kernels::Device*>& devices_;
  const std::function<void()>& abort_;
  std::vector<kernels::DeviceBuffer> buffers_;
};

}  // namespace

int64_t small_sum_limit_blocking(const std::vector<kernels::Device*>& devices,
                                 const SmallSum& small,
                                 const RankSum& large,
                                 const std::function<void()>& abort) {
  Timer timer(devices, small.max_elements, abort);
  int64_t limit = 0;
  for (int64_t count = 0; count < small.max_elements;) {
    count = std::min(count == 0 ? kLeastElements : count * 2, small.max_elements);
    const double small_seconds = timer.seconds_blocking(small.run, count);
    const double large_seconds = timer.seconds_blocking(large, count);
    log_info("all_reduce",
             "bytes",
             count * static_cast<int64_t>(sizeof(float)),
             "peer_us",
             small_seconds * 1e6,
             "nccl_us",
             large_seconds * 1e6);
    limit = small_seconds <= large_seconds ? count : limit;
  }
  return limit;
}

}  // namespace tessera
