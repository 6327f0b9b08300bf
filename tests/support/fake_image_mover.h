// An ImageMover over host memory that does nothing before it is waited for: what relies on begin()
// alone, or lets go of a source too early, fails.
#pragma once

#include <algorithm>
#include <atomic>
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
    if (is_full_) {
      throw DeviceError("the fake device has no memory left");
    }
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
    if (is_stalled_) {
      ++num_stalled_questions_;
      num_stalled_marks_ += batches_.at(batch).empty() ? 1 : 0;
      return false;
    }
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

  /// From now on the device is broken. Any thread, like the next three.
  void fail() { is_broken_ = true; }
  /// From now on it has no memory left.
  void fill() { is_full_ = true; }
  /// From now on until resume() no batch is done.
  void stall() { is_stalled_ = true; }
  void resume() { is_stalled_ = false; }
  /// How often a batch was asked for in vain since stall().
  [[nodiscard]] int64_t num_stalled_questions() const noexcept { return num_stalled_questions_; }
  /// And how often one without images.
  [[nodiscard]] int64_t num_stalled_marks() const noexcept { return num_stalled_marks_; }
  /// How often the broken device was asked for something.
  [[nodiscard]] int64_t num_failures() const noexcept { return num_failures_; }
  [[nodiscard]] int64_t largest_batch() const noexcept { return largest_batch_; }
  [[nodiscard]] bool is_idle() const noexcept { return batches_.empty(); }

 private:
  void fail_if_due() {
    if (is_broken_) {
      ++num_failures_;
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
  std::atomic<bool> is_broken_ = false;
  std::atomic<bool> is_full_ = false;
  std::atomic<bool> is_stalled_ = false;
  std::atomic<int64_t> num_stalled_questions_ = 0;
  std::atomic<int64_t> num_stalled_marks_ = 0;
  std::atomic<int64_t> num_failures_ = 0;
};

}  // namespace tessera::testing
