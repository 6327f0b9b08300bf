// The CPU backend behind a device that records, for what only GPUs do otherwise.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops/backend.h"

namespace tessera::test {

/// The CPU as a device that records: a graph is the function it was recorded from.
class RecordingDevice final : public kernels::Device {
 public:
  explicit RecordingDevice(kernels::Device& device) : device_(device) {}
  kernels::DeviceBuffer allocate(int64_t num_bytes) override { return device_.allocate(num_bytes); }
  void copy_from_host(void* to, const void* from, int64_t n, kernels::StreamView on) override {
    device_.copy_from_host(to, from, n, on);
  }
  void copy_to_host(void* to, const void* from, int64_t n, kernels::StreamView on) override {
    device_.copy_to_host(to, from, n, on);
  }
  void copy(void* to, const void* from, int64_t n, kernels::StreamView on) override {
    device_.copy(to, from, n, on);
  }
  void synchronize_blocking(kernels::StreamView on) override { device_.synchronize_blocking(on); }
  [[nodiscard]] std::string description() const override { return device_.description(); }
  [[nodiscard]] bool can_record() const noexcept override { return true; }
  /// Keeps the sizes of the step: the CPU's operations take them when they are queued.
  std::unique_ptr<kernels::DeviceGraph> record(kernels::StreamView,
                                               const std::function<void()>& work) override {
    class Graph final : public kernels::DeviceGraph {
     public:
      Graph(std::function<void()> work, int& launches)
          : work_(std::move(work)), launches_(launches) {}
      void launch(kernels::StreamView) override {
        ++launches_;
        work_();
      }

     private:
      std::function<void()> work_;
      int& launches_;
    };
    work();  // for what it returns
    return std::make_unique<Graph>(work, num_launches);
  }

  int num_launches = 0;

 private:
  void deallocate(void*) noexcept override {}  // buffers are device_'s
  kernels::Device& device_;
};

class RecordingBackend final : public kernels::Backend {
  const std::unique_ptr<kernels::Backend> cpu_;

 public:
  explicit RecordingBackend(int num_threads)
      : cpu_(kernels::cpu::create_cpu_backend(num_threads)), recording(cpu_->device()) {}
  kernels::Device& device() noexcept override { return recording; }
  kernels::Ops& ops() noexcept override { return cpu_->ops(); }
  [[nodiscard]] kernels::DType preferred_dtype() const noexcept override {
    return cpu_->preferred_dtype();
  }

  RecordingDevice recording;
};

}  // namespace tessera::test
