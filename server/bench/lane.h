// One thread of the load: sends its share of the requests when they are due, follows their answers,
// keeps their records. Lanes share nothing but immutable settings; request n is of lane n mod N.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/base/metrics.h"
#include "server/bench/arrivals.h"
#include "server/bench/target.h"
#include "server/http/asio_types.h"

namespace tessera::bench {

/// What others may watch while a lane runs. Any thread.
struct LaneCounters {
  Counter sent;
  Counter completed;
  Counter failed;
  Counter events;  ///< with text
  Gauge open;
};

/// How late the lane itself was.
struct LaneLags {
  std::vector<float> send_ms;     ///< of each request of an open loop, behind its time
  std::vector<float> loop_ms;     ///< of a timer that does nothing else, all along
  std::vector<float> receive_ms;  ///< of the thread that receives, where that is another one
};

/// Constructed on one thread, then its own thread's; stop() and counters() any thread's.
class Lane final {
 public:
  using MakeTarget =
      std::function<std::unique_ptr<Target>(boost::asio::io_context& loop, Counter& num_events)>;
  struct Share {
    int64_t index = 0;
    int64_t count = 1;
    int64_t max_open = 0;  ///< requests at once; more are refused here, for want of sockets
    Clock::time_point start;
  };

  /// `settings` and `workload` outlive the lane.
  Lane(const BenchSettings& settings,
       const Workload& workload,
       const Share& share,
       const MakeTarget& make_target);
  ~Lane() = default;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// Until all requests have ended, or stop().
  void run_blocking();
  /// No further request; open ones end as unfinished.
  void stop();

  [[nodiscard]] const LaneCounters& counters() const noexcept { return counters_; }
  /// After run_blocking().
  [[nodiscard]] std::vector<RequestRecord>& records() noexcept { return records_; }
  [[nodiscard]] const LaneLags& lags() const noexcept { return lags_; }
  [[nodiscard]] int64_t num_dropped_gaps() const noexcept { return num_dropped_gaps_; }
  /// Of an open loop, without warm-up: due when sending ended, and never sent.
  [[nodiscard]] int64_t num_unsent() const noexcept { return num_unsent_; }

 private:
  void advance();
  void prepare_next();
  void pump();
  void send_next(Clock::time_point now);
  void refuse(Exchange& exchange);
  void on_done(Exchange& exchange);
  void keep(RequestRecord record);
  void end_sending();
  void count_unsent();
  void end_at_duration();
  void stop_after_grace();
  void wait_to_send();
  void stop_open();
  void end_if_idle();
  void watch_loop();

  const BenchSettings& settings_;
  const Workload& workload_;
  const Share share_;
  const bool is_closed_loop_;
  const size_t max_concurrency_;  // of this lane; 0: no cap
  boost::asio::io_context loop_;
  LaneCounters counters_;
  const std::unique_ptr<Target> target_;
  Arrivals arrivals_;
  http::Timer send_timer_;
  http::Timer end_timer_;
  http::Timer probe_timer_;

  int64_t next_index_ = -1;
  Clock::time_point next_due_;
  std::shared_ptr<Exchange> next_;  // null: nothing more to send
  Clock::time_point slot_free_;     // when the last request that waited for a slot got it
  bool is_blocked_ = false;         // next_ waits for a slot
  bool is_sending_ended_ = false;
  Clock::time_point sending_end_;
  std::vector<std::shared_ptr<Exchange>> open_;

  std::vector<RequestRecord> records_;
  LaneLags lags_;
  int64_t num_gaps_ = 0;
  int64_t num_dropped_gaps_ = 0;
  int64_t num_unsent_ = 0;
};

}  // namespace tessera::bench
