#include "engine/parallel/rank_group.h"

#include <utility>

#include <pthread.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

// Between two steps the engine thread samples, checks stop criteria and plans: tens of
// microseconds.
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Spins, then sleeps, until `value` differs from `old`; returns what it is then.
template <typename Value>
Value wait_for_change(const std::atomic<Value>& value, Value old, int num_spins) {
  Value now = value.load(std::memory_order_acquire);
  for (int spin = 0; now == old; ++spin) {
    if (spin < num_spins) {
      pause_cpu();
    } else {
      value.wait(old, std::memory_order_acquire);
    }
    now = value.load(std::memory_order_acquire);
  }
  return now;
}

int spins_for(int num_ranks) {
  return static_cast<unsigned>(num_ranks) <= std::thread::hardware_concurrency() ? kSpins : 0;
}

}  // namespace

RankGroup::RankGroup(std::vector<RankCommunicators> communicators)
    : communicators_(std::move(communicators)) {
  TESSERA_CHECK(!communicators_.empty(), "a group has at least the calling rank");
  for (int rank = 1; rank < size(); ++rank) {
    threads_.emplace_back([this, rank](const std::stop_token& stop) { work(stop, rank); });
    pthread_setname_np(threads_.back().native_handle(), ("rank-" + std::to_string(rank)).c_str());
  }
}

RankGroup::~RankGroup() {
  for (std::jthread& thread : threads_) {
    thread.request_stop();
  }
  generation_.fetch_add(1);
  generation_.notify_all();
}

void RankGroup::run_erased(void* target, Call call) {
  if (threads_.empty()) {
    call(target, 0);
    return;
  }
  target_ = target;
  call_ = call;
  num_running_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  run_rank(0);
  int running = num_running_.load(std::memory_order_acquire);
  while (running != 0) {
    running = wait_for_change(num_running_, running, spins_for(size()));
  }
  if (has_failed_.exchange(false)) {
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

void RankGroup::run_rank(int rank) noexcept {
  try {
    call_(target_, rank);
    return;
  } catch (...) {
    if (!has_failed_.exchange(true)) {
      failure_ = std::current_exception();
    }
  }
  world(rank).abort("rank " + std::to_string(rank) + " has failed");
}

void RankGroup::work(const std::stop_token& stop, int rank) {
  uint32_t seen = 0;
  for (;;) {
    seen = wait_for_change(generation_, seen, spins_for(size()));
    if (stop.stop_requested()) {
      return;
    }
    run_rank(rank);
    if (num_running_.fetch_sub(1, std::memory_order_release) == 1) {
      num_running_.notify_one();
    }
  }
}

}  // namespace tessera
