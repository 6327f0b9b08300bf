#include "engine/parallel/thread_communicator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/base/check.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::StreamView;
using kernels::TensorView;

// Ranks reach a barrier within microseconds of each other: spinning that long avoids a futex call.
// With more ranks than cores a spinning rank would only keep another from arriving.
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Barrier;

/// Shared by all groups of a set of ranks: one failure ends them all.
class AbortState final {
 public:
  void add(Barrier* barrier) { barriers_.push_back(barrier); }
  void abort(const std::string& reason) noexcept;
  [[nodiscard]] bool is_aborted() const noexcept {
    return is_aborted_.load(std::memory_order_acquire);
  }
  /// Why; only after is_aborted().
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

 private:
  std::mutex mutex_;  // guards the first write of reason_
  std::atomic<bool> is_aborted_{false};
  std::string reason_;
  std::vector<Barrier*> barriers_;  // filled before the ranks start
};

class Barrier final {
 public:
  Barrier(int size, AbortState& state)
      : size_(size),
        num_spins_(static_cast<unsigned>(size) <= std::thread::hardware_concurrency() ? kSpins : 0),
        state_(state) {}

  /// Waits for all members. Throws DeviceError when the ranks are aborted before all are here.
  void arrive_and_wait() {
    const uint32_t generation = generation_.load(std::memory_order_acquire);
    throw_if_aborted();
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      num_arrived_.store(0, std::memory_order_relaxed);
      wake_all();
      return;
    }
    for (int spin = 0; generation_.load(std::memory_order_acquire) == generation; ++spin) {
      if (spin < num_spins_) {
        pause_cpu();
      } else {
        generation_.wait(generation, std::memory_order_acquire);
      }
    }
    throw_if_aborted();
  }
  void wake_all() noexcept {
    generation_.fetch_add(1, std::memory_order_acq_rel);
    generation_.notify_all();
  }

 private:
  void throw_if_aborted() const {
    if (state_.is_aborted()) {
      throw DeviceError(state_.reason());
    }
  }

  const int size_;
  const int num_spins_;
  AbortState& state_;
  std::atomic<int> num_arrived_{0};
  std::atomic<uint32_t> generation_{0};  // raised when all have arrived, and by an abort
};

void AbortState::abort(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (is_aborted()) {
      return;
    }
    reason_ = reason;
    is_aborted_.store(true, std::memory_order_release);
  }
  for (Barrier* barrier : barriers_) {
    barrier->wake_all();
  }
}

/// What one member shows the others. Two of them take turns: a member that fills one again has
/// passed the barrier between, so that everybody has read what was in it before.
struct Staging {
  std::vector<float> values;
  int64_t num_columns = 0;
};

/// Kept alive by its members together.
struct Group {
  Group(int size, std::shared_ptr<AbortState> abort_state)
      : state(std::move(abort_state)), barrier(size, *state), staging(static_cast<size_t>(size)) {}

  std::shared_ptr<AbortState> state;
  Barrier barrier;
  std::vector<std::array<Staging, 2>> staging;  ///< of each member
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}
  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override {
    return static_cast<int>(group_->staging.size());
  }
  void abort(const std::string& reason) noexcept override { group_->state->abort(reason); }

 private:
  /// Copies `own` to this member's staging and waits until all have done so.
  void exchange(const ConstTensorView& own) {
    turn_ ^= 1U;
    Staging& staging = group_->staging[static_cast<size_t>(rank_)][turn_];
    const auto count = static_cast<size_t>(own.num_elements());
    if (staging.values.size() < count) {
      staging.values.resize(count);
    }
    std::copy_n(own.as<float>(), count, staging.values.begin());
    staging.num_columns = own.rank > 0 ? own.dim(own.rank - 1) : 0;
    group_->barrier.arrive_and_wait();
  }
  [[nodiscard]] const Staging& of(int member) const {
    return group_->staging[static_cast<size_t>(member)][turn_];
  }

  /// out[i] = sum over the members of their element begin + i.
  void add_up(int64_t begin, int64_t count, float* out) const {
    std::copy_n(of(0).values.begin() + begin, count, out);
    for (int member = 1; member < size(); ++member) {
      const float* values = of(member).values.data() + begin;
      for (int64_t i = 0; i < count; ++i) {
        out[i] += values[i];
      }
    }
  }

  void do_all_reduce(const TensorView& x, StreamView) override {
    exchange(x);
    add_up(0, x.num_elements(), x.as<float>());
  }

  bool do_all_reduce_norm(const kernels::RmsNormParams&, StreamView) override { return false; }

  bool do_reduce_scatter_rounded(const ConstTensorView&, const TensorView&, StreamView) override {
    return false;
  }
  void do_reduce_scatter_heads(const ConstTensorView& partial,
                               const TensorView& sum,
                               StreamView) override {
    exchange(partial);
    const int64_t row_width = partial.dim(1) * partial.dim(2);
    const int64_t own_width = sum.dim(1) * sum.dim(2);
    for (int64_t row = 0; row < sum.dim(0); ++row) {
      add_up(row * row_width + rank_ * own_width, own_width, sum.as<float>() + row * own_width);
    }
  }

  void do_all_gather_columns(const ConstTensorView& own,
                             const TensorView& out,
                             StreamView) override {
    exchange(own);
    if (out.data == nullptr) {
      return;
    }
    int64_t column = 0;
    for (int member = 0; member < size(); ++member) {
      const Staging& staging = of(member);
      TESSERA_CHECK(column + staging.num_columns <= out.dim(1), "more columns than out has");
      for (int64_t row = 0; row < out.dim(0); ++row) {
        std::copy_n(staging.values.begin() + row * staging.num_columns,
                    staging.num_columns,
                    out.as<float>() + row * out.dim(1) + column);
      }
      column += staging.num_columns;
    }
    TESSERA_CHECK(column == out.dim(1), "out has more columns than the members together");
  }

  void do_all_gather(const ConstTensorView& own, const TensorView& out, StreamView) override {
    exchange(own);
    const int64_t count = own.num_elements();
    for (int member = 0; member < size(); ++member) {
      std::copy_n(of(member).values.begin(), count, out.as<float>() + member * count);
    }
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  size_t turn_ = 0;
};

}  // namespace

std::vector<RankCommunicators> make_thread_communicators(int num_ranks, int subgroup_size) {
  TESSERA_CHECK(num_ranks >= 1 && subgroup_size >= 1 && num_ranks % subgroup_size == 0,
                "subgroups of one size");
  const auto state = std::make_shared<AbortState>();
  const auto make_group = [&](int size) {
    auto group = std::make_shared<Group>(size, state);
    state->add(&group->barrier);
    return group;
  };
  const auto world = make_group(num_ranks);
  std::vector<RankCommunicators> ranks;
  std::shared_ptr<Group> subgroup;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int member = rank % subgroup_size;
    if (member == 0) {
      subgroup = make_group(subgroup_size);
    }
    ranks.push_back({std::make_unique<ThreadCommunicator>(world, rank),
                     std::make_unique<ThreadCommunicator>(subgroup, member)});
  }
  return ranks;
}

}  // namespace tessera
