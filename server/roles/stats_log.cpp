#include "server/roles/stats_log.h"

#include <utility>

#include <pthread.h>

namespace tessera {

StatsLog::StatsLog(std::chrono::seconds period, std::vector<Part> parts)
    : period_(period), parts_(std::move(parts)) {
  if (period_.count() > 0) {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }
}

std::vector<metrics::StatsReading> StatsLog::read_all() const {
  std::vector<metrics::StatsReading> readings;
  readings.reserve(parts_.size());
  for (const Part& part : parts_) {
    readings.push_back(part.read());
  }
  return readings;
}

void StatsLog::log_all(const std::vector<metrics::StatsReading>& before,
                       const std::vector<metrics::StatsReading>& now,
                       double seconds) const {
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!metrics::is_idle(before[i], now[i])) {
      metrics::log_stats(
          parts_[i].name, now[i], metrics::rates_between(before[i], now[i], seconds));
    }
  }
}

void StatsLog::run(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "stats_log");
  using Clock = std::chrono::steady_clock;
  std::vector<metrics::StatsReading> before = read_all();
  Clock::time_point read_at = Clock::now();
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, stop, period_, [&stop] { return stop.stop_requested(); })) {
    std::vector<metrics::StatsReading> now = read_all();
    const Clock::time_point at = Clock::now();
    log_all(before, now, std::chrono::duration<double>(at - read_at).count());
    before = std::move(now);
    read_at = at;
  }
}

}  // namespace tessera
