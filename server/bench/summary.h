// The figures of a run, computed once from its records; every report shows these.
#pragma once

#include <string>
#include <vector>

#include "server/bench/load_run.h"
#include "server/bench/statistics.h"

namespace tessera::bench {

/// What happened in a few seconds of the run.
struct TimeSlice {
  double begin_s = 0.0;
  double length_s = 0.0;
  int64_t num_completed = 0;
  double tokens_per_s = 0.0;  ///< events with text, times tokens an event
  double open = 0.0;          ///< requests, on average
  Distribution ttft_ms;       ///< of requests whose first text came in the slice
};

struct ErrorCount {
  std::string error;
  int64_t count = 0;
};

/// Warm-up requests are in none of it. Latencies are of completed requests only.
struct Summary {
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;
  int64_t unfinished = 0;
  int64_t warmup = 0;
  int64_t unsent = 0;  ///< of an open loop: due before the end, held back, never sent
  int64_t resent = 0;  ///< sent again, since a kept connection was found closed
  /// From the first measured request's time to the end of the last one that ended by itself: what
  /// is cut off after the grace does not lengthen it.
  double duration_s = 0.0;

  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double tokens_per_event = 0.0;
  double request_throughput = 0.0;
  double output_throughput = 0.0;
  double max_output_tokens_per_s = 0.0;  ///< in a second of the clock
  int64_t max_concurrent_requests = 0;

  Distribution ttft_ms;            ///< sent → first text
  Distribution tpot_ms;            ///< (E2EL - TTFT) / (tokens - 1), a request
  Distribution itl_ms;             ///< gaps between events with text, of all requests together
  Distribution e2el_ms;            ///< sent → last text or reason of the end
  Distribution ttft_scheduled_ms;  ///< from when the request was due
  Distribution e2el_scheduled_ms;
  Distribution first_byte_ms;
  Distribution input_lengths;
  Distribution output_lengths;

  int64_t num_good = 0;  ///< meet all goodput limits
  int64_t num_good_tokens = 0;
  double request_goodput = 0.0;    ///< a second
  std::vector<ErrorCount> errors;  ///< most frequent first
  std::vector<TimeSlice> slices;

  Distribution send_lag_ms;
  Distribution loop_lag_ms;
  Distribution receive_lag_ms;
  double max_lag_ms = 0.0;  ///< a p99 above it makes the run invalid
  bool is_saturated = false;
  bool is_held_back = false;  ///< a relevant share of what was due is unsent
  double cpu_share = 0.0;     ///< processors that the client kept busy
};

[[nodiscard]] Summary summarize(const LoadResult& result);

}  // namespace tessera::bench
