// A few threads for work that must not run on gRPC's callback threads. Bounded in jobs and in
// bytes.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera::rpc {

class JobQueue final {
 public:
  struct Bounds {
    size_t num_threads = 1;
    size_t max_jobs = 256;  ///< waiting
    int64_t max_bytes = int64_t{64} << 20;
  };

  explicit JobQueue(const Bounds& bounds);
  /// As stop_blocking(). Never on one of its own threads, unless it was stopped before.
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  /// Queues `job`, which holds about `num_bytes`. False when that would pass a bound, and after
  /// stop_blocking(). Any thread.
  [[nodiscard]] bool try_post(int64_t num_bytes, std::function<void()> job);
  /// Waits for running jobs; those not begun are dropped. Once, by the owner.
  void stop_blocking();

 private:
  struct Job {
    int64_t num_bytes = 0;
    std::function<void()> run;
  };

  void work();
  /// Waits for a job; one without `run` once the queue has stopped.
  [[nodiscard]] Job take_blocking();

  const Bounds bounds_;
  std::mutex mutex_;  // guards jobs_, num_bytes_, is_stopped_
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  int64_t num_bytes_ = 0;  // of waiting jobs
  bool is_stopped_ = false;
  std::vector<std::thread> threads_;  // last: they use the rest
};

}  // namespace tessera::rpc
