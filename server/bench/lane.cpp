#include "server/bench/lane.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <boost/asio/post.hpp>
#include <pthread.h>
#include <sys/prctl.h>

#include "engine/base/deadline.h"
#include "engine/base/log.h"
#include "server/bench/lag_samples.h"
#include "server/bench/random_tokens.h"

namespace tessera::bench {
namespace {

// Then the loop looks at answers before it sends on.
constexpr int kMaxBurst = 16;
// Raw samples are kept so that percentiles are exact: 4 bytes each.
constexpr int64_t kMaxGaps = 100'000'000;
// The same for requests, some hundred bytes each: a server that refuses at once takes many.
constexpr size_t kMaxRecords = 20'000'000;

float ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<float, std::milli>(end - begin).count();
}

/// This lane's part of a number that is dealt out; 0 stays 0.
size_t part_of(int64_t total, const Lane::Share& share) {
  const int64_t rest = share.index < total % share.count ? 1 : 0;
  return static_cast<size_t>(total / share.count + rest);
}

uint64_t arrival_seed(const BenchSettings& settings) {
  return make_random(settings.seed, Purpose::kArrivals, 0)();
}

}  // namespace

Lane::Lane(const BenchSettings& settings,
           const Workload& workload,
           const Share& share,
           const MakeTarget& make_target)
    : settings_(settings),
      workload_(workload),
      share_(share),
      is_closed_loop_(settings.arrivals.kind == ArrivalKind::kClosed),
      max_concurrency_(part_of(settings.max_concurrency, share)),
      loop_(1),
      target_(make_target(loop_, counters_.events)),
      arrivals_(settings.arrivals, arrival_seed(settings), workload.trace_ms()),
      send_timer_(loop_.get_executor()),
      end_timer_(loop_.get_executor()),
      probe_timer_(loop_.get_executor()),
      slot_free_(share.start) {}

void Lane::run_blocking() {
  pthread_setname_np(pthread_self(), "bench-lane");
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // the default of 50 us would be lag
  if (settings_.duration.count() > 0) {
    end_at_duration();
  }
  prepare_next();
  probe_timer_.expires_at(std::max(share_.start, Clock::now()));
  watch_loop();
  boost::asio::post(loop_, [this] { pump(); });
  loop_.run();
  count_unsent();  // now that no answer waits to be stamped
  auto receive_ms = target_->end_receiver_blocking(Deadline::after(settings_.grace));
  if (!receive_ms.is_ok()) {
    log_warning("receiver_cut_off",
                "grace_ms",
                settings_.grace.count(),
                "reason",
                receive_ms.status().to_string());
    return;
  }
  lags_.receive_ms = std::move(receive_ms).value();
}

void Lane::stop() {
  boost::asio::post(loop_, [this] {
    end_sending();
    stop_open();
  });
}

/// To this lane's next arrival.
void Lane::advance() {
  for (++next_index_; next_index_ % share_.count != share_.index; ++next_index_) {
    (void)arrivals_.next_s();  // of another lane
  }
  next_due_ = share_.start + std::chrono::duration_cast<Clock::duration>(
                                 std::chrono::duration<double>(arrivals_.next_s()));
}

void Lane::prepare_next() {
  next_.reset();
  advance();
  const int64_t index = next_index_;
  const bool is_after_all = settings_.num_requests > 0 && index >= settings_.num_requests;
  const bool is_too_late =
      settings_.duration.count() > 0 && next_due_ >= share_.start + settings_.duration;
  if (is_sending_ended_ || is_after_all || is_too_late || records_.size() >= kMaxRecords) {
    end_sending();
    return;
  }
  const Prompt prompt = workload_.prompt(index);
  next_ = target_->prepare(prompt, index);
  next_->record().index = index;
  next_->record().is_warmup = index < settings_.num_warmup;
  next_->record().wanted_tokens = prompt.output_tokens;
  if (settings_.cancel_share > 0.0) {
    std::mt19937_64 random = make_random(settings_.seed, Purpose::kCancel, index);
    if (std::uniform_real_distribution<double>(0.0, 1.0)(random) < settings_.cancel_share) {
      std::uniform_int_distribution<int64_t> events(1,
                                                    std::max<int64_t>(prompt.output_tokens - 1, 1));
      next_->cancel_after(events(random));
    }
  }
}

void Lane::pump() {
  for (int burst = 0; next_ != nullptr; ++burst) {
    const Clock::time_point now = Clock::now();
    const bool is_due = now >= next_due_;
    is_blocked_ = is_due && max_concurrency_ > 0 && open_.size() >= max_concurrency_;
    if (is_blocked_) {
      return;  // on_done() goes on
    }
    if (!is_due || burst == kMaxBurst) {
      wait_to_send();
      return;
    }
    send_next(now);
    prepare_next();
  }
}

void Lane::wait_to_send() {
  send_timer_.expires_at(next_due_);
  send_timer_.async_wait([this](const http::ErrorCode& error) {
    if (!error) {
      pump();
    }
  });
}

void Lane::send_next(Clock::time_point now) {
  const std::shared_ptr<Exchange> exchange = std::move(next_);
  RequestRecord& record = exchange->record();
  record.scheduled = is_closed_loop_ ? now : next_due_;
  counters_.sent.add();
  if (share_.max_open > 0 && static_cast<int64_t>(open_.size()) >= share_.max_open) {
    refuse(*exchange);
    return;
  }
  exchange->place = open_.size();
  open_.push_back(exchange);
  counters_.open.set(static_cast<int64_t>(open_.size()));
  exchange->start([this, of = exchange.get()] { on_done(*of); });
  if (!is_closed_loop_) {
    // A cap's wait for a free slot is the server's doing, not the client's.
    lags_.send_ms.push_back(ms_between(std::max(next_due_, slot_free_), record.sent));
  }
}

void Lane::refuse(Exchange& exchange) {
  RequestRecord& record = exchange.record();
  record.sent = record.done = Clock::now();
  record.outcome = Outcome::kFailed;
  record.error = "client: no socket left for one more open request";
  counters_.failed.add();
  keep(std::move(record));
}

void Lane::on_done(Exchange& exchange) {
  RequestRecord record = std::move(exchange.record());
  const size_t place = exchange.place;
  std::swap(open_[place], open_.back());
  open_[place]->place = place;
  open_.pop_back();  // the exchange is gone
  counters_.open.set(static_cast<int64_t>(open_.size()));
  if (record.outcome == Outcome::kCompleted) {
    counters_.completed.add();
  } else if (record.outcome == Outcome::kFailed) {
    counters_.failed.add();
  }
  keep(std::move(record));
  if (is_blocked_) {
    slot_free_ = Clock::now();
    pump();
  }
  end_if_idle();
}

void Lane::keep(RequestRecord record) {
  const auto num_gaps = static_cast<int64_t>(record.gaps_ms.size());
  if (num_gaps_ + num_gaps > kMaxGaps) {
    num_dropped_gaps_ += num_gaps;
    record.gaps_ms = {};
  }
  num_gaps_ += static_cast<int64_t>(record.gaps_ms.size());
  records_.push_back(std::move(record));
}

void Lane::end_sending() {
  next_.reset();
  if (!is_sending_ended_) {
    is_sending_ended_ = true;
    sending_end_ = Clock::now();
    send_timer_.cancel();
    boost::asio::post(loop_, [this] { end_if_idle(); });
  }
}

void Lane::count_unsent() {
  if (is_closed_loop_) {
    return;
  }
  Clock::time_point end = sending_end_;
  if (settings_.duration.count() > 0) {
    end = std::min(end, share_.start + settings_.duration);
  }
  const int64_t end_index =
      settings_.num_requests > 0 ? settings_.num_requests : std::numeric_limits<int64_t>::max();
  constexpr auto max_unsent = static_cast<int64_t>(kMaxRecords);
  for (; next_due_ < end && next_index_ < end_index && num_unsent_ < max_unsent; advance()) {
    num_unsent_ += next_index_ >= settings_.num_warmup ? 1 : 0;
  }
}

void Lane::end_at_duration() {
  end_timer_.expires_at(share_.start + settings_.duration);
  end_timer_.async_wait([this](const http::ErrorCode& error) {
    if (!error) {
      end_sending();
      stop_after_grace();
    }
  });
}

void Lane::stop_after_grace() {
  end_timer_.expires_after(settings_.grace);
  end_timer_.async_wait([this](const http::ErrorCode& error) {
    if (!error) {
      stop_open();
    }
  });
}

void Lane::stop_open() {
  for (const auto& exchange : open_) {
    exchange->stop(Outcome::kUnfinished);
  }
}

void Lane::end_if_idle() {
  if (is_sending_ended_ && open_.empty()) {
    send_timer_.cancel();
    end_timer_.cancel();
    probe_timer_.cancel();
    loop_.stop();
  }
}

void Lane::watch_loop() {
  probe_timer_.async_wait([this](const http::ErrorCode& error) {
    if (error) {
      return;
    }
    const Clock::time_point now = Clock::now();
    add_lag_samples(probe_timer_.expiry(), now, lags_.loop_ms);
    target_->probe_receiver();
    probe_timer_.expires_at(std::max(probe_timer_.expiry() + kLagProbePeriod, now));
    watch_loop();
  });
}

}  // namespace tessera::bench
