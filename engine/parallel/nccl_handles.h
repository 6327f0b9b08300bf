// All NCCL communicators of a set of ranks and what ends them together. A thread of its own looks
// for errors that NCCL finds while nobody calls it. Only files nccl_* include this.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/result.h"
#include "engine/parallel/nccl_library.h"

namespace tessera {

class NcclHandles final {
 public:
  /// `abort_small_sum`, if any, ends ranks that wait in sums past NCCL.
  NcclHandles(std::shared_ptr<const NcclLibrary> library, std::function<void()> abort_small_sum)
      : library_(std::move(library)), abort_small_sum_(std::move(abort_small_sum)) {}
  /// Waits for all graphs that recorded a collective to be destroyed: NCCL keeps what they use.
  ~NcclHandles();
  NcclHandles(const NcclHandles&) = delete;
  NcclHandles& operator=(const NcclHandles&) = delete;

  /// One communicator a device, as a group of their own; none for a single device. Errors:
  /// UNAVAILABLE with NCCL's reason.
  [[nodiscard]] Result<std::vector<ncclComm_t>> add_group(const std::vector<int>& devices);
  /// After the last group: starts to look for errors.
  void watch();

  /// Ends all kernels and calls of all groups; nobody gets in any more. Does not wait for graphs.
  /// Any thread; the first reason counts.
  void abort(const std::string& reason) noexcept;
  /// Throws DeviceError with the reason.
  void throw_if_aborted() const;
  /// Runs `enqueue`, which calls NCCL. Throws DeviceError naming `what` unless NCCL took it, and
  /// when the group has been aborted.
  template <typename Enqueue>
  void call(const char* what, const Enqueue& enqueue) const {
    const Inside inside(num_inside_);  // before the look at is_aborted_: abort() waits for it
    throw_if_aborted();
    const ncclResult_t result = enqueue(*library_);
    throw_if_aborted();
    throw_unless_taken(result, what);
  }

 private:
  /// A rank that is in NCCL, or about to look whether it may.
  class Inside final {
   public:
    explicit Inside(std::atomic<int>& count) : count_(count) { count_.fetch_add(1); }
    ~Inside() { count_.fetch_sub(1); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    std::atomic<int>& count_;
  };
  void throw_unless_taken(ncclResult_t result, const char* what) const;
  void poll(const std::stop_token& stop);
  [[nodiscard]] std::string find_error();
  void end_all();

  const std::shared_ptr<const NcclLibrary> library_;
  const std::function<void()> abort_small_sum_;
  std::vector<ncclComm_t> handles_;  // before watch()
  std::mutex mutex_;                 // no look for errors while they are being aborted
  std::atomic<bool> is_aborted_{false};
  mutable std::atomic<int> num_inside_{0};
  std::string reason_;  // set before is_aborted_
  std::jthread watch_;
  std::vector<std::thread> enders_;  // one a communicator, once aborted
};

}  // namespace tessera
