#include "server/bench/load_run.h"

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <iterator>
#include <mutex>
#include <utility>

#include <sys/resource.h>

#include "server/bench/grpc_target.h"
#include "server/bench/http_target.h"
#include "server/bench/probe.h"

namespace tessera::bench {
namespace {

// Lanes begin together, when all threads are there.
constexpr std::chrono::milliseconds kStartDelay{20};
// Files and sockets that are no request's.
constexpr int64_t kOtherFiles = 64;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// Sockets that requests may have: main() has raised the limit as far as it goes.
int64_t max_open_sockets() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto files = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1'000'000));
  return std::max<int64_t>(files - kOtherFiles, 1);
}

}  // namespace

/// Counts lanes that have ended.
class LoadRun::Ended final {
 public:
  void add() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  [[nodiscard]] bool wait_blocking(size_t count, const Deadline& deadline) {
    std::unique_lock lock(mutex_);
    const auto is_reached = [&] { return count_ >= count; };
    if (deadline.is_infinite()) {
      changed_.wait(lock, is_reached);
      return true;
    }
    return changed_.wait_until(lock, deadline.at(), is_reached);
  }

 private:
  std::mutex mutex_;  // guards count_
  std::condition_variable changed_;
  size_t count_ = 0;
};

LoadRun::LoadRun(BenchSettings settings)
    : settings_(std::move(settings)), ended_(std::make_unique<Ended>()) {}

LoadRun::~LoadRun() {
  for (const auto& lane : lanes_) {
    lane->stop();
  }
}

Result<std::unique_ptr<LoadRun>> LoadRun::create(BenchSettings settings) {
  std::unique_ptr<LoadRun> run(new LoadRun(std::move(settings)));
  TESSERA_TRY(run->workload_, make_workload(run->settings_));
  BenchSettings& known = run->settings_;
  if (known.arrivals.kind == ArrivalKind::kTrace && known.num_requests == 0 &&
      known.duration.count() == 0) {
    known.num_requests = run->workload_->size();
  }
  TESSERA_RETURN_IF_ERROR(validate(known));
  TESSERA_RETURN_IF_ERROR(run->find_server());
  return run;
}

Status LoadRun::find_server() {
  if (settings_.target.protocol == Protocol::kGrpc) {
    TESSERA_TRY(const std::string model, probe_grpc_blocking(settings_));
    settings_.model = settings_.model.empty() ? model : settings_.model;
    make_target_ = [this](boost::asio::io_context& loop, Counter& num_events) {
      return std::make_unique<GrpcTarget>(settings_, loop, num_events);
    };
    return Status::ok();
  }
  TESSERA_TRY(const HttpServer server, probe_http_blocking(settings_));
  settings_.model = settings_.model.empty() ? server.model : settings_.model;
  make_target_ = [this, endpoint = server.endpoint](boost::asio::io_context& loop,
                                                    Counter& num_events) {
    return std::make_unique<HttpTarget>(settings_, endpoint, loop, num_events);
  };
  return Status::ok();
}

Status LoadRun::start() {
  result_.start = Clock::now() + kStartDelay;
  result_.started_unix_s = std::time(nullptr);
  cpu_at_start_s_ = cpu_seconds();
  const int64_t max_open = max_open_sockets() / settings_.num_threads;
  if (settings_.max_concurrency > max_open * settings_.num_threads) {
    return resource_exhausted(
        "--concurrency is more than this process may have sockets: ulimit -n");
  }
  for (int64_t index = 0; index < settings_.num_threads; ++index) {
    const Lane::Share share{.index = index,
                            .count = settings_.num_threads,
                            .max_open = max_open,
                            .start = result_.start};
    lanes_.push_back(std::make_unique<Lane>(settings_, *workload_, share, make_target_));
  }
  for (const auto& lane : lanes_) {
    threads_.emplace_back([this, &lane = *lane] {
      lane.run_blocking();
      ended_->add();
    });
  }
  return Status::ok();
}

bool LoadRun::wait_blocking(const Deadline& deadline) {
  const bool is_over = ended_->wait_blocking(lanes_.size(), deadline);
  const bool has_too_many = settings_.max_errors > 0 && progress().failed > settings_.max_errors;
  if (!is_over && has_too_many && !result_.has_too_many_errors) {
    result_.has_too_many_errors = true;
    for (const auto& lane : lanes_) {
      lane->stop();
    }
  }
  return is_over;
}

Progress LoadRun::progress() const {
  Progress sum;
  sum.elapsed_s = std::chrono::duration<double>(Clock::now() - result_.start).count();
  for (const auto& lane : lanes_) {
    const LaneCounters& counters = lane->counters();
    sum.sent += counters.sent.value();
    sum.open += counters.open.value();
    sum.completed += counters.completed.value();
    sum.failed += counters.failed.value();
    sum.events += counters.events.value();
  }
  return sum;
}

void LoadRun::stop() {
  result_.is_stopped = true;
  for (const auto& lane : lanes_) {
    lane->stop();
  }
}

LoadResult LoadRun::take_result() {
  threads_.clear();
  result_.wall_s = std::chrono::duration<double>(Clock::now() - result_.start).count();
  result_.cpu_s = cpu_seconds() - cpu_at_start_s_;
  const auto append = [](const std::vector<float>& from, std::vector<float>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const auto& lane : lanes_) {
    auto& records = lane->records();
    std::move(records.begin(), records.end(), std::back_inserter(result_.records));
    append(lane->lags().send_ms, result_.lags.send_ms);
    append(lane->lags().loop_ms, result_.lags.loop_ms);
    append(lane->lags().receive_ms, result_.lags.receive_ms);
    result_.num_dropped_gaps += lane->num_dropped_gaps();
    result_.num_unsent += lane->num_unsent();
  }
  std::sort(result_.records.begin(), result_.records.end(), [](const auto& a, const auto& b) {
    return a.index < b.index;
  });
  result_.settings = settings_;
  return std::move(result_);
}

}  // namespace tessera::bench
