#include "server/bench/summary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace tessera::bench {
namespace {

// The client's own delay must not be seen in what it reports: at most this part of a typical gap,
// but never more than the one, nor asked to be less than the other.
constexpr double kMaxLagOfGap = 0.05;
constexpr double kMaxLagMs = 1.0;
constexpr double kLeastMaxLagMs = 0.2;
// Above it the load was not the one that was asked for.
constexpr double kMaxUnsentShare = 0.01;
constexpr size_t kMaxErrorKinds = 64;
constexpr double kMaxSlices = 60.0;

double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

double tpot_ms(const RequestRecord& record) {
  return ms_between(record.first_content, record.last_content) /
         static_cast<double>(record.completion_tokens - 1);
}

bool is_good(const RequestRecord& record, const GoodputLimits& limits) {
  const auto meets = [](double value, const std::optional<double>& limit) {
    return !limit.has_value() || value <= *limit;
  };
  return meets(ms_between(record.sent, record.first_content), limits.ttft_ms) &&
         meets(ms_between(record.sent, record.last_content), limits.e2el_ms) &&
         (record.completion_tokens < 2 || meets(tpot_ms(record), limits.tpot_ms));
}

/// Samples of the completed requests, while they are gathered.
struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, ttft_scheduled, e2el_scheduled, first_byte;
  std::vector<double> inputs, outputs;

  void add(const RequestRecord& record) {
    ttft.push_back(ms_between(record.sent, record.first_content));
    e2el.push_back(ms_between(record.sent, record.last_content));
    ttft_scheduled.push_back(ms_between(record.scheduled, record.first_content));
    e2el_scheduled.push_back(ms_between(record.scheduled, record.last_content));
    first_byte.push_back(ms_between(record.sent, record.first_byte));
    if (record.completion_tokens > 1) {
      tpot.push_back(tpot_ms(record));
    }
    itl.insert(itl.end(), record.gaps_ms.begin(), record.gaps_ms.end());
    inputs.push_back(static_cast<double>(record.prompt_tokens));
    outputs.push_back(static_cast<double>(record.completion_tokens));
  }
};

class Summarizer final {
 public:
  explicit Summarizer(const LoadResult& result) : result_(result) {
    for (const RequestRecord& record : result.records) {
      if (record.is_warmup) {
        ++summary_.warmup;
        continue;
      }
      begin_ = measured_.empty() ? record.scheduled : std::min(begin_, record.scheduled);
      if (record.outcome != Outcome::kUnfinished) {
        end_ = std::max(end_, record.done);
      }
      measured_.push_back(&record);
    }
    if (end_ == Clock::time_point()) {  // all were cut off
      for (const RequestRecord* record : measured_) {
        end_ = std::max(end_, record->done);
      }
    }
    summary_.duration_s = measured_.empty() ? 0.0 : seconds_between(begin_, end_);
  }

  [[nodiscard]] Summary run() {
    count();
    throughput();
    concurrency();
    tokens_over_time();
    lags();
    unsent();
    return std::move(summary_);
  }

 private:
  void count() {
    for (const RequestRecord* record : measured_) {
      summary_.resent += record->num_resends;
      switch (record->outcome) {
        case Outcome::kCompleted:
          add_completed(*record);
          break;
        case Outcome::kFailed:
          add_failed(*record);
          break;
        case Outcome::kCancelled:
          ++summary_.cancelled;
          break;
        case Outcome::kUnfinished:
          ++summary_.unfinished;
          break;
      }
    }
    if (num_events_ > 0) {
      summary_.tokens_per_event =
          static_cast<double>(summary_.output_tokens) / static_cast<double>(num_events_);
    }
    for (auto& [error, number] : errors_) {
      summary_.errors.push_back({error, number});
    }
    std::stable_sort(summary_.errors.begin(),
                     summary_.errors.end(),
                     [](const auto& a, const auto& b) { return a.count > b.count; });
    distributions(std::move(samples_));
  }

  void add_completed(const RequestRecord& record) {
    ++summary_.completed;
    summary_.input_tokens += record.prompt_tokens;
    summary_.output_tokens += record.completion_tokens;
    num_events_ += record.num_content_events;
    samples_.add(record);
    if (is_good(record, result_.settings.goodput)) {
      ++summary_.num_good;
      summary_.num_good_tokens += record.completion_tokens;
    }
  }

  void add_failed(const RequestRecord& record) {
    ++summary_.failed;
    const bool is_room = errors_.size() < kMaxErrorKinds || errors_.count(record.error) > 0;
    ++errors_[is_room ? record.error : "other errors"];
  }

  void distributions(Samples samples) {
    summary_.ttft_ms = make_distribution(std::move(samples.ttft));
    summary_.tpot_ms = make_distribution(std::move(samples.tpot));
    summary_.itl_ms = make_distribution(std::move(samples.itl));
    summary_.e2el_ms = make_distribution(std::move(samples.e2el));
    summary_.ttft_scheduled_ms = make_distribution(std::move(samples.ttft_scheduled));
    summary_.e2el_scheduled_ms = make_distribution(std::move(samples.e2el_scheduled));
    summary_.first_byte_ms = make_distribution(std::move(samples.first_byte));
    summary_.input_lengths = make_distribution(std::move(samples.inputs));
    summary_.output_lengths = make_distribution(std::move(samples.outputs));
  }

  void throughput() {
    if (summary_.duration_s <= 0.0) {
      return;
    }
    summary_.request_throughput = static_cast<double>(summary_.completed) / summary_.duration_s;
    summary_.output_throughput = static_cast<double>(summary_.output_tokens) / summary_.duration_s;
    summary_.request_goodput = static_cast<double>(summary_.num_good) / summary_.duration_s;
  }

  void concurrency() {
    std::vector<std::pair<Clock::time_point, int>> changes;
    for (const RequestRecord* record : measured_) {
      changes.emplace_back(record->sent, 1);
      changes.emplace_back(record->done, -1);
    }
    std::sort(changes.begin(), changes.end());  // an end before a begin at the same time
    int64_t open = 0;
    for (const auto& change : changes) {
      open += change.second;
      summary_.max_concurrent_requests = std::max(summary_.max_concurrent_requests, open);
    }
  }

  void tokens_over_time();
  void add_to_slices(const RequestRecord& record,
                     std::vector<double>& seconds,
                     std::vector<std::vector<double>>& ttft);
  void add_open(const RequestRecord& record);

  void lags() {
    summary_.send_lag_ms =
        make_distribution({result_.lags.send_ms.begin(), result_.lags.send_ms.end()});
    summary_.loop_lag_ms =
        make_distribution({result_.lags.loop_ms.begin(), result_.lags.loop_ms.end()});
    summary_.max_lag_ms =
        summary_.itl_ms.count() == 0
            ? kMaxLagMs
            : std::clamp(
                  kMaxLagOfGap * summary_.itl_ms.percentile(50.0), kLeastMaxLagMs, kMaxLagMs);
    summary_.receive_lag_ms =
        make_distribution({result_.lags.receive_ms.begin(), result_.lags.receive_ms.end()});
    for (const Distribution* lag :
         {&summary_.send_lag_ms, &summary_.loop_lag_ms, &summary_.receive_lag_ms}) {
      summary_.is_saturated |= lag->percentile(99.0) > summary_.max_lag_ms;
    }
    summary_.cpu_share = result_.wall_s > 0.0 ? result_.cpu_s / result_.wall_s : 0.0;
  }

  void unsent() {
    summary_.unsent = result_.num_unsent;
    const auto num_sent = static_cast<double>(measured_.size());
    const auto num_unsent = static_cast<double>(summary_.unsent);
    summary_.is_held_back = num_unsent > kMaxUnsentShare * (num_sent + num_unsent);
  }

  const LoadResult& result_;
  std::vector<const RequestRecord*> measured_;
  Clock::time_point begin_;
  Clock::time_point end_;
  Samples samples_;
  std::map<std::string, int64_t> errors_;
  int64_t num_events_ = 0;  // of completed requests
  Summary summary_;
};

void Summarizer::tokens_over_time() {
  if (measured_.empty() || summary_.duration_s <= 0.0) {
    return;
  }
  // A round length, 1, 2, 5, 10 ... s, that gives few enough slices; short runs have tenths.
  double length = summary_.duration_s < 10.0 ? 0.1 : 1.0;
  for (const double factors[] = {2.0, 2.5, 2.0}; summary_.duration_s / length > kMaxSlices;) {
    for (const double factor : factors) {
      length *= summary_.duration_s / length > kMaxSlices ? factor : 1.0;
    }
  }
  const auto num_slices = static_cast<size_t>(summary_.duration_s / length) + 1;
  summary_.slices.resize(num_slices);
  for (size_t i = 0; i < num_slices; ++i) {
    summary_.slices[i].begin_s = static_cast<double>(i) * length;
    summary_.slices[i].length_s =
        std::min(length, summary_.duration_s - summary_.slices[i].begin_s);
  }
  std::vector<double> seconds(static_cast<size_t>(summary_.duration_s) + 1, 0.0);
  std::vector<std::vector<double>> ttft(num_slices);
  for (const RequestRecord* record : measured_) {
    add_to_slices(*record, seconds, ttft);
    add_open(*record);
  }
  summary_.max_output_tokens_per_s = *std::max_element(seconds.begin(), seconds.end());
  for (size_t i = 0; i < num_slices; ++i) {
    TimeSlice& slice = summary_.slices[i];
    const double own = std::max(slice.length_s, 1e-9);
    slice.tokens_per_s /= own;
    slice.open /= own;
    slice.ttft_ms = make_distribution(std::move(ttft[i]));
  }
}

void Summarizer::add_to_slices(const RequestRecord& record,
                               std::vector<double>& seconds,
                               std::vector<std::vector<double>>& ttft) {
  const double length = summary_.slices.front().length_s;
  const auto slice_at = [&](double at_s) {
    return std::min(static_cast<size_t>(std::max(at_s, 0.0) / length), summary_.slices.size() - 1);
  };
  if (record.outcome == Outcome::kCompleted) {
    ++summary_.slices[slice_at(seconds_between(begin_, record.done))].num_completed;
  }
  if (record.num_content_events == 0) {
    return;
  }
  double at_s = seconds_between(begin_, record.first_content);
  // What a request that was cut off has had in the grace.
  const auto is_beyond = [&](double s) {
    return record.outcome == Outcome::kUnfinished && s > summary_.duration_s;
  };
  if (is_beyond(at_s)) {
    return;
  }
  ttft[slice_at(at_s)].push_back(ms_between(record.sent, record.first_content));
  const double tokens = summary_.tokens_per_event > 0.0 ? summary_.tokens_per_event : 1.0;
  for (size_t i = 0; i <= record.gaps_ms.size(); ++i) {
    at_s += i == 0 ? 0.0 : static_cast<double>(record.gaps_ms[i - 1]) / 1000.0;
    if (is_beyond(at_s)) {
      break;
    }
    summary_.slices[slice_at(at_s)].tokens_per_s += tokens;
    seconds[std::min(static_cast<size_t>(std::max(at_s, 0.0)), seconds.size() - 1)] += tokens;
  }
}

void Summarizer::add_open(const RequestRecord& record) {
  const double from = seconds_between(begin_, record.sent);
  const double to = seconds_between(begin_, record.done);
  for (TimeSlice& slice : summary_.slices) {
    const double shared =
        std::min(to, slice.begin_s + slice.length_s) - std::max(from, slice.begin_s);
    slice.open += std::max(shared, 0.0);
  }
}

}  // namespace

Summary summarize(const LoadResult& result) {
  return Summarizer(result).run();
}

}  // namespace tessera::bench
