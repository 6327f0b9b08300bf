// What a load test does: plain values, read once from the options, then immutable.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace tessera::bench {

using Clock = std::chrono::steady_clock;

enum class Protocol : uint8_t { kHttp, kGrpc };
enum class Api : uint8_t { kChat, kCompletions };
enum class ArrivalKind : uint8_t { kConstant, kPoisson, kGamma, kTrace, kClosed };
enum class DataKind : uint8_t { kRandom, kSharedPrefix, kJsonl, kMooncake };

struct TargetAddress {
  Protocol protocol = Protocol::kHttp;
  std::string host;
  uint16_t port = 0;
  std::string base_path;  ///< of HTTP, in front of /v1/...; no slash at its end
};

/// "http://host:port[/base]" or "grpc://host:port"; without a scheme HTTP. Errors:
/// INVALID_ARGUMENT; UNIMPLEMENTED for https and grpcs, since there is no TLS yet.
[[nodiscard]] Result<TargetAddress> parse_target(std::string_view url);

struct ArrivalSettings {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate = 0.0;         ///< requests per second; not of kTrace and kClosed
  double burstiness = 1.0;   ///< of kGamma, its shape: below 1 burstier than Poisson
  double trace_speed = 1.0;  ///< of kTrace: 2 halves the times between requests
};

struct DataSettings {
  DataKind kind = DataKind::kRandom;
  std::string path;             ///< of kJsonl and kMooncake
  int64_t input_tokens = 512;   ///< of kRandom; of kSharedPrefix those after the prefix
  int64_t output_tokens = 128;  ///< asked for, where a file does not say
  double length_range = 0.0;    ///< lengths are uniform in [(1 - r) n, (1 + r) n]
  int64_t prefix_tokens = 256;
  int64_t num_prefix_groups = 8;
  int32_t first_token_id = 32;  ///< random ids are in [first, end)
  int32_t end_token_id = 1000;
};

/// A request is good when it meets all that are set, counted from when it was sent.
struct GoodputLimits {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2el_ms;

  [[nodiscard]] bool are_any_set() const noexcept {
    return ttft_ms.has_value() || tpot_ms.has_value() || e2el_ms.has_value();
  }
};

/// From "ttft:500", "tpot:50", "e2el:5000". Errors: INVALID_ARGUMENT.
[[nodiscard]] Result<GoodputLimits> parse_goodput(const std::vector<std::string>& limits);

struct BenchSettings {
  TargetAddress target;
  Api api = Api::kCompletions;
  std::string model;  ///< filled by find_model() when empty
  std::string api_key;
  ArrivalSettings arrivals;
  DataSettings data;
  int64_t num_requests = 0;               ///< with the warm-up; 0: until the duration ends
  std::chrono::milliseconds duration{0};  ///< requests are sent for so long; 0: no limit
  int64_t max_concurrency = 0;            ///< open requests; of kClosed exactly; 0: no cap
  int64_t num_warmup = 0;                 ///< first requests, left out of all figures
  double cancel_share = 0.0;              ///< requests given up after a random number of events
  int64_t max_errors = 0;                 ///< more failures end the run; 0: no limit
  GoodputLimits goodput;
  std::chrono::milliseconds request_timeout{600'000};
  std::chrono::milliseconds grace{30'000};  ///< for open requests when no more are sent
  int64_t num_threads = 1;
  uint64_t seed = 0;
  double temperature = 0.0;
  bool ignore_eos = true;  ///< answers are as long as asked for
};

/// What does not fit together. Errors: INVALID_ARGUMENT, all faults, one a line.
[[nodiscard]] Status validate(const BenchSettings& settings);

/// "poisson" and so on, for reports.
[[nodiscard]] std::string_view arrival_name(ArrivalKind kind) noexcept;
[[nodiscard]] std::string_view data_name(DataKind kind) noexcept;

}  // namespace tessera::bench
