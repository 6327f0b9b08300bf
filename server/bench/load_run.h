// A whole load test: looks at the server, runs the lanes, gathers what they recorded.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "server/bench/lane.h"

namespace tessera::bench {

/// Sums over all lanes, while they run.
struct Progress {
  double elapsed_s = 0.0;
  int64_t sent = 0;
  int64_t open = 0;
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t events = 0;
};

/// Everything that was recorded.
struct LoadResult {
  BenchSettings settings;              ///< with the model's name
  std::vector<RequestRecord> records;  ///< by index
  LaneLags lags;
  Clock::time_point start;
  int64_t started_unix_s = 0;
  double wall_s = 0.0;
  double cpu_s = 0.0;            ///< of this process, all threads
  int64_t num_dropped_gaps = 0;  ///< gaps of requests for which there was no memory left
  int64_t num_unsent = 0;        ///< of an open loop, measured: due before the end and never sent
  bool is_stopped = false;       ///< by stop()
  bool has_too_many_errors = false;
};

/// One thread but for the lanes'.
class LoadRun final {
 public:
  /// Reads the data and looks at the server: seconds at most. Errors: those of validate(),
  /// make_workload() and the probes.
  [[nodiscard]] static Result<std::unique_ptr<LoadRun>> create(BenchSettings settings);
  ~LoadRun();
  LoadRun(const LoadRun&) = delete;
  LoadRun& operator=(const LoadRun&) = delete;

  /// Begins to send.
  [[nodiscard]] Status start();
  /// True once all requests have ended; false at the deadline.
  [[nodiscard]] bool wait_blocking(const Deadline& deadline);
  [[nodiscard]] Progress progress() const;
  /// Ends the run early; wait_blocking() is true soon after.
  void stop();
  /// After wait_blocking() was true; once.
  [[nodiscard]] LoadResult take_result();

  [[nodiscard]] const BenchSettings& settings() const noexcept { return settings_; }

 private:
  class Ended;

  explicit LoadRun(BenchSettings settings);
  [[nodiscard]] Status find_server();

  BenchSettings settings_;
  std::unique_ptr<Workload> workload_;
  Lane::MakeTarget make_target_;
  std::unique_ptr<Ended> ended_;  // before the threads that tell it
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::jthread> threads_;
  LoadResult result_;
  double cpu_at_start_s_ = 0.0;
};

}  // namespace tessera::bench
