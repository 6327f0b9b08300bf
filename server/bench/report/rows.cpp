#include "server/bench/report/rows.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "engine/base/text.h"

namespace tessera::bench {
namespace {

std::string percentile_text(const Distribution& samples, double percent) {
  std::string text = fixed(samples.percentile(percent), 2);
  switch (percentile_soundness(samples.count(), percent)) {
    case Soundness::kSound:
      return text;
    case Soundness::kWeak:
      return "~" + text;
    case Soundness::kAbsent:
      return "-";
  }
  return text;
}

Row latency_row(const char* name, const Distribution& samples) {
  const int64_t count = samples.count();
  if (count == 0) {
    return {name, "0", "-", "-", "-", "-", "-", "-", "-"};
  }
  Row row = {name, std::to_string(count), fixed(samples.mean, 2)};
  for (const double percent : kPercentiles) {
    row.push_back(percentile_text(samples, percent));
  }
  row.push_back(fixed(samples.max(), 2));
  return row;
}

std::string lag_text(const Distribution& lag) {
  return str_cat("p50 ",
                 fixed(lag.percentile(50.0), 3),
                 ", p99 ",
                 fixed(lag.percentile(99.0), 3),
                 ", max ",
                 fixed(lag.max(), 3),
                 " ms");
}

std::string describe_arrivals(const BenchSettings& settings) {
  const ArrivalSettings& arrivals = settings.arrivals;
  std::string text(arrival_name(arrivals.kind));
  switch (arrivals.kind) {
    case ArrivalKind::kConstant:
    case ArrivalKind::kPoisson:
      text += str_cat(" ", arrivals.rate, "/s");
      break;
    case ArrivalKind::kGamma:
      text += str_cat(" ", arrivals.rate, "/s, burstiness ", arrivals.burstiness);
      break;
    case ArrivalKind::kTrace:
      text += str_cat(" at ", arrivals.trace_speed, " times its speed");
      break;
    case ArrivalKind::kClosed:
      return str_cat("closed loop of ", settings.max_concurrency);
  }
  return settings.max_concurrency > 0
             ? str_cat(text, ", at most ", settings.max_concurrency, " open")
             : text;
}

std::string describe_data(const DataSettings& data) {
  std::string text(data_name(data.kind));
  switch (data.kind) {
    case DataKind::kRandom:
      return str_cat(text, " ", data.input_tokens, " in, ", data.output_tokens, " out");
    case DataKind::kSharedPrefix:
      return str_cat(text,
                     " ",
                     data.num_prefix_groups,
                     " x ",
                     data.prefix_tokens,
                     " + ",
                     data.input_tokens,
                     " in, ",
                     data.output_tokens,
                     " out");
    case DataKind::kJsonl:
    case DataKind::kMooncake:
      break;
  }
  return str_cat(text, " ", data.path.substr(data.path.rfind('/') + 1));
}

/// How true the client was to its load.
void add_client_rows(const BenchSettings& settings,
                     const Summary& summary,
                     std::vector<Row>& rows) {
  if (settings.arrivals.kind != ArrivalKind::kClosed) {
    rows.push_back({"Due, never sent", str_cat(summary.unsent)});
  }
  if (settings.target.protocol == Protocol::kHttp) {
    rows.push_back({"Sent again", str_cat(summary.resent, ", on kept connections found closed")});
  }
  if (summary.send_lag_ms.count() > 0) {
    rows.push_back({"Schedule lag", lag_text(summary.send_lag_ms)});
  }
  rows.push_back({"Client loop lag", lag_text(summary.loop_lag_ms)});
  if (summary.receive_lag_ms.count() > 0) {
    rows.push_back({"Receiver lag", lag_text(summary.receive_lag_ms)});
  }
  rows.push_back({"Client processors", fixed(summary.cpu_share, 2)});
}

}  // namespace

std::string fixed(double value, int digits) {
  std::array<char, 64> text{};
  const int length = std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return {text.data(), static_cast<size_t>(std::clamp(length, 0, 63))};
}

std::string describe_load(const BenchSettings& settings) {
  return str_cat(describe_arrivals(settings), "; ", describe_data(settings.data));
}

std::vector<Row> figure_rows(const LoadResult& result, const Summary& summary) {
  const BenchSettings& settings = result.settings;
  std::vector<Row> rows = {
      {"Model", settings.model},
      {"Load", describe_load(settings)},
      {"Requests",
       str_cat(summary.completed,
               " completed, ",
               summary.failed,
               " failed, ",
               summary.cancelled,
               " cancelled, ",
               summary.unfinished,
               " unfinished; ",
               summary.warmup,
               " of warm-up left out")},
      {"Duration", fixed(summary.duration_s, 2) + " s"},
      {"Request throughput", fixed(summary.request_throughput, 2) + "/s"},
      {"Output throughput",
       str_cat(fixed(summary.output_throughput, 1),
               " tokens/s, at most ",
               fixed(summary.max_output_tokens_per_s, 0),
               " in one second")},
      {"Tokens",
       str_cat(summary.input_tokens,
               " in, ",
               summary.output_tokens,
               " out; ",
               fixed(summary.tokens_per_event, 2),
               " an event")},
      {"Answer length",
       str_cat("p50 ",
               fixed(summary.output_lengths.percentile(50.0), 0),
               ", max ",
               fixed(summary.output_lengths.max(), 0))},
      {"Open requests", str_cat("at most ", summary.max_concurrent_requests)},
  };
  if (settings.goodput.are_any_set()) {
    const double share = summary.completed == 0 ? 0.0
                                                : 100.0 * static_cast<double>(summary.num_good) /
                                                      static_cast<double>(summary.completed);
    rows.push_back({"Goodput",
                    str_cat(fixed(summary.request_goodput, 2),
                            "/s; ",
                            summary.num_good,
                            " requests, ",
                            fixed(share, 1),
                            " % of the completed")});
  }
  add_client_rows(settings, summary, rows);
  for (const ErrorCount& error : summary.errors) {
    rows.push_back({str_cat("Failed ", error.count, " x"), error.error});
  }
  return rows;
}

std::vector<Row> latency_rows(const Summary& summary) {
  std::vector<Row> rows = {
      {"milliseconds", "n", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"}};
  rows.push_back(latency_row("TTFT", summary.ttft_ms));
  rows.push_back(latency_row("TPOT", summary.tpot_ms));
  rows.push_back(latency_row("ITL", summary.itl_ms));
  rows.push_back(latency_row("E2EL", summary.e2el_ms));
  rows.push_back(latency_row("TTFT from schedule", summary.ttft_scheduled_ms));
  rows.push_back(latency_row("E2EL from schedule", summary.e2el_scheduled_ms));
  rows.push_back(latency_row("First byte", summary.first_byte_ms));
  return rows;
}

}  // namespace tessera::bench
