#include "server/bench/settings.h"

#include <charconv>
#include <cmath>

#include "engine/base/text.h"

namespace tessera::bench {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    return invalid_argument(str_cat("\"", text, "\" is not a port"));
  }
  return port;
}

/// "host:port", "[v6]:port", or a host alone.
Status parse_authority(std::string_view text, uint16_t default_port, TargetAddress& target) {
  const size_t bracket = text.starts_with('[') ? text.find(']') : std::string_view::npos;
  const size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  target.host = std::string(text.substr(0, colon));
  if (bracket != std::string_view::npos) {
    target.host = std::string(text.substr(1, bracket - 1));
  }
  if (target.host.empty()) {
    return invalid_argument(
        "the target has no host; expected http://HOST:PORT or grpc://HOST:PORT");
  }
  if (target.host.find_first_of(" \r\n\t@[]") != std::string::npos) {
    return invalid_argument(str_cat("\"", target.host, "\" is not a host"));
  }
  target.port = default_port;
  if (colon != std::string_view::npos) {
    TESSERA_TRY(target.port, parse_port(text.substr(colon + 1)));
  }
  return Status::ok();
}

Status set_limit(const std::string& text, GoodputLimits& limits) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  double value = 0.0;
  const char* end = text.data() + text.size();
  const char* begin = colon == std::string::npos ? end : text.data() + colon + 1;
  const auto [rest, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || rest != end || !std::isfinite(value) || value <= 0.0) {
    return invalid_argument(str_cat("\"", text, "\" is not NAME:MILLISECONDS"));
  }
  if (name == "ttft") {
    limits.ttft_ms = value;
  } else if (name == "tpot") {
    limits.tpot_ms = value;
  } else if (name == "e2el") {
    limits.e2el_ms = value;
  } else {
    return invalid_argument(str_cat("\"", name, "\" is none of [ttft, tpot, e2el]"));
  }
  return Status::ok();
}

bool is_positive(double value) {
  return std::isfinite(value) && value > 0.0;
}

class Faults final {
 public:
  void require(bool is_right, std::string_view fault) {
    if (!is_right) {
      text_ += str_cat(text_.empty() ? "" : "\n", fault);
    }
  }
  [[nodiscard]] Status status() const {
    return text_.empty() ? Status::ok() : invalid_argument(text_);
  }

 private:
  std::string text_;
};

void check_arrivals(const BenchSettings& settings, Faults& faults) {
  const ArrivalSettings& arrivals = settings.arrivals;
  switch (arrivals.kind) {
    case ArrivalKind::kTrace:
      faults.require(settings.data.kind == DataKind::kMooncake,
                     "arrivals of a trace need its data: give --data mooncake");
      faults.require(is_positive(arrivals.trace_speed), "--trace-speed must be above 0");
      break;
    case ArrivalKind::kClosed:
      faults.require(settings.max_concurrency > 0,
                     "no load: give --rate, --concurrency or --arrivals trace");
      break;
    case ArrivalKind::kConstant:
    case ArrivalKind::kPoisson:
    case ArrivalKind::kGamma:
      faults.require(is_positive(arrivals.rate), "--rate must be above 0");
      break;
  }
  faults.require(is_positive(arrivals.burstiness), "--burstiness must be above 0");
}

void check_data(const DataSettings& data, Faults& faults) {
  const bool needs_file = data.kind == DataKind::kJsonl || data.kind == DataKind::kMooncake;
  faults.require(!needs_file || !data.path.empty(), "no data: give --data-file");
  faults.require(needs_file || data.path.empty(),
                 "--data-file is of --data jsonl and mooncake only");
  faults.require(data.input_tokens >= 1 && data.input_tokens <= kMaxTokens &&
                     data.prefix_tokens >= 0 && data.prefix_tokens <= kMaxTokens,
                 str_cat("prompts have 1 to ", kMaxTokens, " tokens"));
  faults.require(data.output_tokens >= 1 && data.output_tokens <= kMaxTokens,
                 str_cat("answers have 1 to ", kMaxTokens, " tokens"));
  faults.require(data.length_range >= 0.0 && data.length_range < 1.0,
                 "--length-range must be from 0 to below 1");
  faults.require(data.num_prefix_groups >= 1, "--prefix-groups must be at least 1");
  faults.require(data.first_token_id >= 0 && data.end_token_id > data.first_token_id,
                 "--token-ids must be FIRST:END with FIRST below END");
}

}  // namespace

Result<TargetAddress> parse_target(std::string_view url) {
  TargetAddress target;
  std::string_view rest = url;
  std::string_view scheme = "http";
  if (const size_t mark = url.find("://"); mark != std::string_view::npos) {
    scheme = url.substr(0, mark);
    rest = url.substr(mark + 3);
  }
  if (scheme == "https" || scheme == "grpcs") {
    return unimplemented(str_cat(
        scheme, " targets: there is no TLS yet; give the server's plain http:// or grpc:// port"));
  }
  if (scheme != "http" && scheme != "grpc") {
    return invalid_argument(str_cat("\"", scheme, "\" is none of [http, grpc]"));
  }
  target.protocol = scheme == "grpc" ? Protocol::kGrpc : Protocol::kHttp;
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    target.base_path = std::string(rest.substr(slash));
    while (target.base_path.ends_with('/')) {
      target.base_path.pop_back();
    }
    // People paste the base URL of the OpenAI libraries, which ends so.
    if (target.base_path.ends_with("/v1")) {
      target.base_path.resize(target.base_path.size() - 3);
    }
  }
  if (target.base_path.find_first_of(" \r\n\t") != std::string::npos) {
    return invalid_argument("the target's path has white space");
  }
  if (target.protocol == Protocol::kGrpc && !target.base_path.empty()) {
    return invalid_argument("a grpc:// target has no path");
  }
  const uint16_t default_port = target.protocol == Protocol::kGrpc ? 9000 : 80;
  TESSERA_RETURN_IF_ERROR(parse_authority(rest.substr(0, slash), default_port, target));
  return target;
}

Result<GoodputLimits> parse_goodput(const std::vector<std::string>& limits) {
  GoodputLimits parsed;
  for (const std::string& limit : limits) {
    if (const Status status = set_limit(limit, parsed); !status.is_ok()) {
      return status;
    }
  }
  return parsed;
}

Status validate(const BenchSettings& settings) {
  Faults faults;
  check_arrivals(settings, faults);
  check_data(settings.data, faults);
  faults.require(settings.num_requests > 0 || settings.duration.count() > 0,
                 "no end: give --requests or --duration");
  faults.require(settings.num_requests == 0 || settings.num_requests > settings.num_warmup,
                 "--warmup leaves no request to measure");
  faults.require(settings.cancel_share >= 0.0 && settings.cancel_share <= 1.0,
                 "--cancel-share must be from 0 to 1");
  faults.require(settings.temperature >= 0.0 && std::isfinite(settings.temperature),
                 "--temperature must be at least 0");
  faults.require(settings.max_concurrency == 0 || settings.max_concurrency >= settings.num_threads,
                 "--concurrency is divided among --client-threads: it must be at least as many");
  return faults.status();
}

std::string_view arrival_name(ArrivalKind kind) noexcept {
  switch (kind) {
    case ArrivalKind::kConstant:
      return "constant";
    case ArrivalKind::kPoisson:
      return "poisson";
    case ArrivalKind::kGamma:
      return "gamma";
    case ArrivalKind::kTrace:
      return "trace";
    case ArrivalKind::kClosed:
      return "closed";
  }
  return "";
}

std::string_view data_name(DataKind kind) noexcept {
  switch (kind) {
    case DataKind::kRandom:
      return "random";
    case DataKind::kSharedPrefix:
      return "shared-prefix";
    case DataKind::kJsonl:
      return "jsonl";
    case DataKind::kMooncake:
      return "mooncake";
  }
  return "";
}

}  // namespace tessera::bench
