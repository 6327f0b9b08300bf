// An ImageMover over host memory that does nothing before it is waited for: what relies on begin()
// alone, or lets go of a source too early, fails.
#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "engine/transport/checksum.h"
#include "kernels/core/check.h"
#include "kernels/core/image_mover.h"
#include "kernels/cpu/cpu_device.h"

namespace tessera::testing {

class FakeImageMover final : public kernels::ImageMover {
 public:
  /// `is_cuda`: it says so.
  explicit FakeImageMover(int64_t max_images = 8, bool is_cuda = false)
      : max_images_(max_images), is_cuda_(is_cuda) {}

  [[nodiscard]] bool is_cuda() const noexcept override { return is_cuda_; }
  [[nodiscard]] int64_t max_images() const noexcept override { return max_images_; }
  void enter() override {}
  [[nodiscard]] kernels::DeviceBuffer allocate(int64_t num_bytes) override {
    kernels::DeviceBuffer buffer = device_.allocate(num_bytes);
    std::fill_n(static_cast<char*>(buffer.data()), num_bytes, '\x5a');
    return buffer;
  }
  [[nodiscard]] int64_t begin(std::span<const Image> images) override {
    fail_if_due();
    TESSERA_CHECK(static_cast<int64_t>(images.size()) <= max_images_, "too many images");
    batches_[++last_batch_].assign(images.begin(), images.end());
    largest_batch_ = std::max(largest_batch_, static_cast<int64_t>(images.size()));
    return last_batch_;
  }
  /// When it is asked for the second time.
  [[nodiscard]] bool is_done(int64_t batch) override {
    fail_if_due();
    return num_questions_[batch]++ > 0;
  }
  [[nodiscard]] std::vector<uint64_t> finish_blocking(int64_t batch) override {
    fail_if_due();
    std::vector<uint64_t> sums;
    for (const Image& image : batches_.at(batch)) {
      sums.push_back(image.destination == nullptr
                         ? image_checksum(image.source, image.num_bytes)
                         : copy_with_checksum(image.destination, image.source, image.num_bytes));
    }
    batches_.erase(batch);
    return sums;
  }
  void see_remote_writes() override {}
  void write_blocking(void* destination, const void* source, int64_t num_bytes) override {
    std::copy_n(static_cast<const char*>(source), num_bytes, static_cast<char*>(destination));
  }
  void read_blocking(void* destination, const void* source, int64_t num_bytes) override {
    std::copy_n(static_cast<const char*>(source), num_bytes, static_cast<char*>(destination));
  }
  void drain_blocking() override {}

  /// From now on the device is broken.
  void fail() { is_broken_ = true; }
  [[nodiscard]] int64_t largest_batch() const noexcept { return largest_batch_; }
  [[nodiscard]] bool is_idle() const noexcept { return batches_.empty(); }

 private:
  void fail_if_due() const {
    if (is_broken_) {
      throw DeviceError("the fake device is broken");
    }
  }

  const int64_t max_images_;
  const bool is_cuda_;
  kernels::cpu::CpuDevice device_{"fake"};
  std::map<int64_t, std::vector<Image>> batches_;
  std::map<int64_t, int> num_questions_;
  int64_t last_batch_ = 0;
  int64_t largest_batch_ = 0;
  bool is_broken_ = false;
};

}  // namespace tessera::testing
