// Logs a line for each part of the process now and then, while it works: see
// server/metrics/stats_line.h. Has a thread of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/metrics/stats_line.h"

namespace tessera {

class StatsLog final {
 public:
  struct Part {
    std::string name;
    std::function<metrics::StatsReading()> read;  ///< any thread; what it uses outlives the log
  };

  /// A period of 0 logs nothing.
  StatsLog(std::chrono::seconds period, std::vector<Part> parts);
  /// Ends the thread at once.
  ~StatsLog() = default;
  StatsLog(const StatsLog&) = delete;
  StatsLog& operator=(const StatsLog&) = delete;

 private:
  void run(const std::stop_token& stop);
  [[nodiscard]] std::vector<metrics::StatsReading> read_all() const;
  void log_all(const std::vector<metrics::StatsReading>& before,
               const std::vector<metrics::StatsReading>& now,
               double seconds) const;

  const std::chrono::seconds period_;
  const std::vector<Part> parts_;
  std::mutex mutex_;  // guards nothing: the condition wants one
  std::condition_variable_any stopped_;
  std::jthread thread_;  // last: joined before what it uses dies
};

}  // namespace tessera
