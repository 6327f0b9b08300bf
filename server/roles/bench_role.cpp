#include "server/roles/bench_role.h"

#include <charconv>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include <unistd.h>

#include "engine/base/text.h"
#include "server/bench/load_run.h"
#include "server/bench/report/live_line.h"
#include "server/bench/report/reports.h"
#include "server/bench/summary.h"
#include "server/signals.h"

namespace tessera {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPollPeriod{100};

Result<double> parse_number(std::string_view name, const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return invalid_argument(str_cat("--", name, " is \"", text, "\", expected a number"));
  }
  return value;
}

bench::ArrivalKind arrival_kind(const cli::Options& options) {
  if (options.arrivals == "trace") {
    return bench::ArrivalKind::kTrace;
  }
  if (options.rate.empty()) {
    return bench::ArrivalKind::kClosed;
  }
  return options.arrivals == "constant" ? bench::ArrivalKind::kConstant
         : options.arrivals == "gamma"  ? bench::ArrivalKind::kGamma
                                        : bench::ArrivalKind::kPoisson;
}

bench::DataKind data_kind(const std::string& name) {
  return name == "shared-prefix" ? bench::DataKind::kSharedPrefix
         : name == "jsonl"       ? bench::DataKind::kJsonl
         : name == "mooncake"    ? bench::DataKind::kMooncake
                                 : bench::DataKind::kRandom;
}

Status read_arrivals(const cli::Options& options, bench::ArrivalSettings& arrivals) {
  arrivals.kind = arrival_kind(options);
  if (!options.rate.empty()) {
    TESSERA_TRY(arrivals.rate, parse_number("rate", options.rate));
  }
  TESSERA_TRY(arrivals.burstiness, parse_number("burstiness", options.burstiness));
  TESSERA_TRY(arrivals.trace_speed, parse_number("trace-speed", options.trace_speed));
  return Status::ok();
}

Status read_token_ids(const std::string& text, bench::DataSettings& data) {
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, data.first_token_id);
  const bool has_colon = first.ec == std::errc() && first.ptr != end && *first.ptr == ':';
  const auto last = std::from_chars(has_colon ? first.ptr + 1 : end, end, data.end_token_id);
  if (!has_colon || last.ec != std::errc() || last.ptr != end) {
    return invalid_argument(str_cat("--token-ids is \"", text, "\", expected FIRST:END"));
  }
  return Status::ok();
}

Status read_data(const cli::Options& options, bench::DataSettings& data) {
  data.kind = data_kind(options.data);
  data.path = options.data_file;
  data.input_tokens = options.input_tokens;
  data.output_tokens = options.output_tokens;
  data.prefix_tokens = options.prefix_tokens;
  data.num_prefix_groups = options.num_prefix_groups;
  TESSERA_TRY(data.length_range, parse_number("length-range", options.length_range));
  return read_token_ids(options.token_ids, data);
}

Result<bench::BenchSettings> read_settings(const cli::Options& options) {
  bench::BenchSettings settings;
  TESSERA_TRY(settings.target, bench::parse_target(options.url));
  settings.api = options.api == "chat" ? bench::Api::kChat : bench::Api::kCompletions;
  settings.model = options.bench_model;
  settings.api_key = options.bench_api_key;
  TESSERA_RETURN_IF_ERROR(read_arrivals(options, settings.arrivals));
  TESSERA_RETURN_IF_ERROR(read_data(options, settings.data));
  settings.num_requests = options.num_requests;
  settings.duration = std::chrono::seconds(options.duration_s);
  settings.max_concurrency = options.concurrency;
  settings.num_warmup = options.num_warmup;
  TESSERA_TRY(settings.cancel_share, parse_number("cancel-share", options.cancel_share));
  settings.max_errors = options.max_errors;
  TESSERA_TRY(settings.goodput, bench::parse_goodput(options.goodput));
  settings.request_timeout = std::chrono::seconds(options.bench_timeout_s);
  settings.grace = std::chrono::seconds(options.grace_s);
  settings.num_threads = options.client_threads;
  settings.seed = static_cast<uint64_t>(options.bench_seed);
  TESSERA_TRY(settings.temperature, parse_number("temperature", options.temperature));
  settings.ignore_eos = options.ignore_eos;
  return settings;
}

Status write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  return file ? Status::ok() : invalid_argument(str_cat(path, ": cannot be written"));
}

Status write_records(const std::string& path, const bench::LoadResult& result) {
  std::ofstream file(path, std::ios::binary);
  for (const bench::RequestRecord& record : result.records) {
    file << bench::render_record(result, record);
  }
  file.close();
  return file ? Status::ok() : invalid_argument(str_cat(path, ": cannot be written"));
}

/// Until all requests have ended; a signal ends them.
void watch_blocking(bench::LoadRun& run) {
  bench::LiveLine line(stderr, isatty(STDERR_FILENO) == 1);
  while (!run.wait_blocking(Deadline::after(milliseconds(0)))) {
    line.show(run.progress());
    if (wait_for_stop_blocking(kPollPeriod)) {
      run.stop();
      stop_at_next_signal();
    }
  }
  line.end();
}

Status report(const cli::Options& options,
              const bench::LoadResult& result,
              const bench::Summary& summary) {
  std::fputs(bench::render_table(result, summary).c_str(), stdout);
  std::fflush(stdout);
  Status status;
  if (!options.json_path.empty()) {
    status = write_file(options.json_path, bench::render_json(result, summary));
  }
  if (status.is_ok() && !options.html_path.empty()) {
    status = write_file(options.html_path, bench::render_page(result, summary));
  }
  if (status.is_ok() && !options.records_path.empty()) {
    status = write_records(options.records_path, result);
  }
  return status;
}

}  // namespace

Status run_bench(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  TESSERA_TRY(bench::BenchSettings settings, read_settings(options));
  TESSERA_TRY(const auto run, bench::LoadRun::create(std::move(settings)));
  TESSERA_RETURN_IF_ERROR(run->start());
  watch_blocking(*run);
  const bench::LoadResult result = run->take_result();
  const bench::Summary summary = bench::summarize(result);
  TESSERA_RETURN_IF_ERROR(report(options, result, summary));
  if (const std::string reason = bench::invalid_reason(result, summary); !reason.empty()) {
    return failed_precondition("INVALID RUN: " + reason);
  }
  return Status::ok();
}

}  // namespace tessera
