#include <array>
#include <ctime>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/base/text.h"
#include "server/bench/report/reports.h"

namespace tessera::bench {
namespace {

using json = nlohmann::ordered_json;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::string date_text(int64_t unix_s) {
  const auto time = static_cast<std::time_t>(unix_s);
  std::tm parts{};
  gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  const size_t length = std::strftime(text.data(), text.size(), "%Y%m%d-%H%M%S", &parts);
  return {text.data(), length};
}

/// "p99" and "p99.9".
std::string percentile_name(double percent) {
  return str_cat("p", percent);
}

void add_latency(json& out, const std::string& name, const Distribution& samples) {
  out["mean_" + name + "_ms"] = samples.mean;
  out["median_" + name + "_ms"] = samples.percentile(50.0);
  out["std_" + name + "_ms"] = samples.deviation;
  for (const double percent : kPercentiles) {
    out[percentile_name(percent) + "_" + name + "_ms"] = samples.percentile(percent);
  }
  out["max_" + name + "_ms"] = samples.max();
  out["num_" + name] = samples.count();
  for (const double percent : kPercentiles) {
    if (percentile_soundness(samples.count(), percent) != Soundness::kSound) {
      out["unsound"].push_back(percentile_name(percent) + "_" + name + "_ms");
    }
  }
}

json errors_of(const Summary& summary) {
  json counts = json::object();
  for (const ErrorCount& error : summary.errors) {
    counts[error.error] = error.count;
  }
  return counts;
}

json slices_of(const Summary& summary) {
  json slices = json::array();
  for (const TimeSlice& slice : summary.slices) {
    slices.push_back({{"begin_s", slice.begin_s},
                      {"completed", slice.num_completed},
                      {"tokens_per_s", slice.tokens_per_s},
                      {"open", slice.open},
                      {"num_ttft", slice.ttft_ms.count()},
                      {"p50_ttft_ms", slice.ttft_ms.percentile(50.0)},
                      {"p99_ttft_ms", slice.ttft_ms.percentile(99.0)}});
  }
  return slices;
}

void add_settings(json& out, const LoadResult& result) {
  const BenchSettings& settings = result.settings;
  const bool is_closed = settings.arrivals.kind == ArrivalKind::kClosed;
  out["date"] = date_text(result.started_unix_s);
  out["backend"] = settings.target.protocol == Protocol::kGrpc ? "tessera-grpc"
                   : settings.api == Api::kChat                ? "openai-chat"
                                                               : "openai";
  out["endpoint_type"] = out["backend"];  // its name in older results
  out["label"] = nullptr;
  out["model_id"] = settings.model;
  out["tokenizer_id"] = nullptr;  // the server's, whichever that is
  out["num_prompts"] = settings.num_requests;
  out["request_rate"] = is_closed ? json("inf") : json(settings.arrivals.rate);
  out["burstiness"] = settings.arrivals.burstiness;
  out["max_concurrency"] =
      settings.max_concurrency > 0 ? json(settings.max_concurrency) : json(nullptr);
  // What the times of records count from: to set beside logs of other processes of this machine.
  out["steady_start_s"] = seconds_between(Clock::time_point(), result.start);
  out["arrivals"] = arrival_name(settings.arrivals.kind);
  out["data"] = data_name(settings.data.kind);
  out["seed"] = settings.seed;
}

/// A list a request, in vLLM's order of requests: those that failed have zeros.
void add_lists(json& out, const LoadResult& result) {
  for (const char* name : {"input_lens", "output_lens", "ttfts", "itls", "start_times", "errors"}) {
    out[name] = json::array();
  }
  for (const RequestRecord& record : result.records) {
    if (record.is_warmup) {
      continue;
    }
    const bool has_text = record.num_content_events > 0;
    out["input_lens"].push_back(record.prompt_tokens);
    out["output_lens"].push_back(record.completion_tokens);
    out["ttfts"].push_back(has_text ? seconds_between(record.sent, record.first_content) : 0.0);
    json gaps = json::array();
    for (const float gap_ms : record.gaps_ms) {
      gaps.push_back(static_cast<double>(gap_ms) / 1000.0);
    }
    out["itls"].push_back(std::move(gaps));
    out["start_times"].push_back(seconds_between(result.start, record.sent));
    out["errors"].push_back(record.error);
  }
}

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kCompleted:
      return "completed";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kUnfinished:
      return "unfinished";
  }
  return "";
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string render_json(const LoadResult& result, const Summary& summary) {
  json out;
  add_settings(out, result);
  out["duration"] = summary.duration_s;
  out["completed"] = summary.completed;
  out["failed"] = summary.failed;
  out["cancelled"] = summary.cancelled;
  out["unfinished"] = summary.unfinished;
  out["warmup"] = summary.warmup;
  out["unsent"] = summary.unsent;
  out["resent"] = summary.resent;
  out["total_input_tokens"] = summary.input_tokens;
  out["total_output_tokens"] = summary.output_tokens;
  out["request_throughput"] = summary.request_throughput;
  const bool has_goodput = result.settings.goodput.are_any_set();
  out["request_goodput"] = has_goodput ? json(summary.request_goodput) : json(nullptr);
  out["num_good"] = has_goodput ? json(summary.num_good) : json(nullptr);
  out["output_throughput"] = summary.output_throughput;
  out["total_token_throughput"] =
      summary.duration_s > 0.0
          ? static_cast<double>(summary.input_tokens + summary.output_tokens) / summary.duration_s
          : 0.0;
  out["max_output_tokens_per_s"] = summary.max_output_tokens_per_s;
  out["max_concurrent_requests"] = summary.max_concurrent_requests;
  out["tokens_per_event"] = summary.tokens_per_event;
  out["unsound"] = json::array();  // keys of percentiles that rest on too few samples
  add_latency(out, "ttft", summary.ttft_ms);
  add_latency(out, "tpot", summary.tpot_ms);
  add_latency(out, "itl", summary.itl_ms);
  add_latency(out, "e2el", summary.e2el_ms);
  add_latency(out, "ttft_scheduled", summary.ttft_scheduled_ms);
  add_latency(out, "e2el_scheduled", summary.e2el_scheduled_ms);
  add_latency(out, "first_byte", summary.first_byte_ms);
  add_latency(out, "schedule_lag", summary.send_lag_ms);
  add_latency(out, "loop_lag", summary.loop_lag_ms);
  add_latency(out, "receive_lag", summary.receive_lag_ms);
  out["client_cpus"] = summary.cpu_share;
  out["is_valid"] = invalid_reason(result, summary).empty();
  out["is_stopped_early"] = result.is_stopped || result.has_too_many_errors;
  out["error_counts"] = errors_of(summary);
  out["slices"] = slices_of(summary);
  add_lists(out, result);
  return dump(out) + "\n";
}

std::string render_record(const LoadResult& result, const RequestRecord& record) {
  const auto at = [&](Clock::time_point time) {
    return time == Clock::time_point() ? json(nullptr) : json(seconds_between(result.start, time));
  };
  const json line = {{"index", record.index},
                     {"warmup", record.is_warmup},
                     {"outcome", outcome_name(record.outcome)},
                     {"error", record.error},
                     {"scheduled_s", at(record.scheduled)},
                     {"sent_s", at(record.sent)},
                     {"first_byte_s", at(record.first_byte)},
                     {"first_text_s", at(record.first_content)},
                     {"last_text_s", at(record.last_content)},
                     {"done_s", at(record.done)},
                     {"wanted_tokens", record.wanted_tokens},
                     {"prompt_tokens", record.prompt_tokens},
                     {"completion_tokens", record.completion_tokens},
                     {"resends", record.num_resends},
                     {"gaps_ms", record.gaps_ms}};
  return dump(line) + "\n";
}

}  // namespace tessera::bench
