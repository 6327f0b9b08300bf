// Sums over GPUs that write into each other's memory (kernels/cuda/peer_sum.h): microseconds of a
// call, in graphs of many, when all members come together and when the last one comes late.
//
//   peer_sum_bench [--bytes 8192 1048576] [--repeats 50]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/peer_sum.h"
#include "tools/bench/gpu_read_kernel.h"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::cuda::PeerSum;

constexpr int kCalls = 100;  ///< of a graph
constexpr int64_t kMaxBytes = int64_t{8} << 20;
constexpr int64_t kReadBytes = int64_t{128} << 20;

/// How often the last member reads kReadBytes first: some 45 us each.
struct Lateness {
  const char* name;
  int first_call = 0;
  int other_calls = 0;
};
constexpr Lateness kTogether = {"all together"};
constexpr Lateness kEachLate = {"each call late", 1, 1};
constexpr Lateness kFirstLate = {"the first of 100 calls late", 64};

struct Times {
  double least = 0.0, median = 0.0, largest = 0.0;
};

Times times_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

struct Member {
  std::unique_ptr<kernels::Backend> backend;
  kernels::DeviceBuffer values;
  kernels::DeviceBuffer read;

  [[nodiscard]] kernels::cuda::CudaDevice& device() const {
    return static_cast<kernels::cuda::CudaDevice&>(backend->device());
  }
};

class PeerSumBench final {
 public:
  PeerSumBench() {
    std::vector<kernels::Device*> devices;
    const std::vector<float> zeros(static_cast<size_t>(kReadBytes) / sizeof(float));
    const int count = std::min(kernels::cuda::num_cuda_devices(), PeerSum::kMaxMembers);
    for (int i = 0; i < count; ++i) {
      auto backend = kernels::cuda::create_cuda_backend(i);
      kernels::Device& device = backend->device();
      const Member& member = members_.emplace_back(
          Member{std::move(backend), device.allocate(kMaxBytes), device.allocate(kReadBytes)});
      device.copy_from_host(member.values.data(), zeros.data(), kMaxBytes, {});
      device.copy_from_host(member.read.data(), zeros.data(), kReadBytes, {});
      device.synchronize_blocking({});
      devices.push_back(&device);
    }
    sum_ = PeerSum::create(devices, kMaxBytes / static_cast<int64_t>(sizeof(float)));
    if (sum_ == nullptr) {
      throw DeviceError("this needs two GPUs that reach each other's memory");
    }
  }

  /// Microseconds of a call, of `repeats` graphs. Of 0 bytes: of what makes the last member late.
  Times us(int64_t num_bytes, const Lateness& lateness, int repeats) {
    std::vector<std::unique_ptr<kernels::DeviceGraph>> graphs(members_.size());
    on_each([&](size_t member) { graphs[member] = record(member, num_bytes, lateness); });
    std::vector<double> times;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      const Clock::time_point before = Clock::now();
      on_each([&](size_t member) {
        graphs[member]->launch({});
        members_[member].device().synchronize_blocking({});
      });
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - before).count() /
                      kCalls);
    }
    return times_of(std::move(times));
  }

 private:
  std::unique_ptr<kernels::DeviceGraph> record(size_t member,
                                               int64_t num_bytes,
                                               const Lateness& lateness) {
    const Member& own = members_[member];
    auto* values = static_cast<float*>(own.values.data());
    const bool is_late = member + 1 == members_.size();
    return own.device().record({}, [&] {
      for (int call = 0; call < kCalls; ++call) {
        const int reads = call == 0 ? lateness.first_call : lateness.other_calls;
        for (int i = 0; is_late && i < reads; ++i) {
          launch_read_kernel(own.read.data(), kReadBytes, values, own.device().enter({}));
        }
        if (num_bytes > 0) {
          sum_->run(static_cast<int>(member),
                    values,
                    num_bytes / static_cast<int64_t>(sizeof(float)),
                    {});
        }
      }
    });
  }
  void on_each(const std::function<void(size_t)>& work) {
    std::vector<std::jthread> threads;
    for (size_t member = 0; member < members_.size(); ++member) {
      threads.emplace_back([&work, member] { work(member); });
    }
  }

  std::vector<Member> members_;
  std::unique_ptr<PeerSum> sum_;
};

void run(const std::vector<int64_t>& sizes, int repeats) {
  PeerSumBench bench;
  for (const Lateness& lateness : {kTogether, kEachLate, kFirstLate}) {
    const bool is_late = lateness.first_call > 0;
    const double late_us = is_late ? bench.us(0, lateness, repeats).median : 0.0;
    std::printf(
        "%s: what makes it so takes %.1f us a call, not counted below\n", lateness.name, late_us);
    std::printf("%10s %10s %10s %10s\n", "bytes", "least us", "median us", "most us");
    for (const int64_t num_bytes : sizes) {
      const Times times = bench.us(num_bytes, lateness, repeats);
      std::printf("%10lld %10.2f %10.2f %10.2f\n",
                  static_cast<long long>(num_bytes),
                  times.least - late_us,
                  times.median - late_us,
                  times.largest - late_us);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  CLI::App app("Sums over GPUs that write into each other's memory");
  std::vector<int64_t> sizes = {
      8 << 10, 32 << 10, 128 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20};
  int repeats = 50;
  app.add_option("--bytes", sizes, "Sizes of the tensors")
      ->check(CLI::Range(int64_t{4}, tessera::bench::kMaxBytes));
  app.add_option("--repeats", repeats, "Graphs of each size")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    tessera::bench::run(sizes, repeats);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "peer_sum_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
