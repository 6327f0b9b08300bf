// The threads of a group's ranks: fork, let every rank run, join. The caller is rank 0, so that a
// group of one starts no thread. One caller at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "engine/parallel/thread_communicator.h"

namespace tessera {

class RankGroup final {
 public:
  /// One rank a member of `communicators` (not empty). Threads are named "rank-<r>".
  explicit RankGroup(std::vector<RankCommunicators> communicators);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(communicators_.size()); }
  [[nodiscard]] Communicator& world(int rank) noexcept {
    return *communicators_[static_cast<size_t>(rank)].world;
  }
  [[nodiscard]] Communicator& attention(int rank) noexcept {
    return *communicators_[static_cast<size_t>(rank)].attention;
  }

  /// Runs function(rank) on every rank and waits for all. When one throws, the communicators are
  /// aborted, so that nobody waits for it, and the first exception is rethrown here; the group's
  /// collectives stay aborted. Does not allocate.
  template <typename Function>
  void run_blocking(Function&& function) {
    using Target = std::remove_reference_t<Function>;
    run_erased(const_cast<void*>(static_cast<const void*>(&function)),
               [](void* target, int rank) { (*static_cast<Target*>(target))(rank); });
  }

 private:
  using Call = void (*)(void*, int);
  void run_erased(void* target, Call call);
  void run_rank(int rank) noexcept;
  void work(const std::stop_token& stop, int rank);

  std::vector<RankCommunicators> communicators_;
  void* target_ = nullptr;  // set before generation_ is raised
  Call call_ = nullptr;
  std::exception_ptr failure_;  // of the first rank that threw; has_failed_ decides who writes it
  std::atomic<bool> has_failed_{false};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> num_running_{0};
  std::vector<std::jthread> threads_;
};

}  // namespace tessera
