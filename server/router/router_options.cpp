#include "server/router/router_options.h"

#include <limits>

#include "engine/base/result.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

constexpr int64_t kMax = std::numeric_limits<int32_t>::max();

Status check_option(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) {
    return Status::ok();
  }
  return invalid_argument(str_cat(name, " is ", value, ", expected ", low, " to ", high));
}

Status check_rate(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) {  // false for NaN
    return Status::ok();
  }
  return invalid_argument(str_cat(name, " is ", value, ", expected ", low, " to ", high));
}

}  // namespace

bool parse_policy(const std::string& name, PolicyKind& policy) {
  if (name == "prefix_affinity") {
    policy = PolicyKind::kPrefixAffinity;
  } else if (name == "least_load") {
    policy = PolicyKind::kLeastLoad;
  } else if (name == "round_robin") {
    policy = PolicyKind::kRoundRobin;
  } else {
    return false;
  }
  return true;
}

Status RouterOptions::validate() const {
  if (model_fingerprint.empty()) {
    return invalid_argument("model_fingerprint is empty");
  }
  const struct {
    const char* name;
    int64_t value;
    int64_t low;
    int64_t high;
  } fields[] = {
      {"vocab_size", vocab_size, 1, kMax},
      {"max_model_len", max_model_len, 2, kMax},
      {"resolve_period", resolve_period.count(), 10, kMax},
      {"reconnect_first", reconnect_first.count(), 1, kMax},
      {"reconnect_last", reconnect_last.count(), reconnect_first.count(), kMax},
      {"suspicion", suspicion.count(), 0, kMax},
      {"max_prefix_blocks", max_prefix_blocks, 0, kMax},
      {"max_decode_candidates", max_decode_candidates, 1, 16},
      {"local_prefill_max_tokens", local_prefill_max_tokens, 0, kMax},
      {"max_in_flight_requests", max_in_flight_requests, 1, kMax},
      {"max_queued_prompt_tokens", max_queued_prompt_tokens, 1, int64_t{1} << 40},
      {"max_waiting_requests", max_waiting_requests, 1, kMax},
      {"worker_wait", worker_wait.count(), 0, kMax},
      {"max_replays", max_replays, 0, 16},
      {"backoff_first", backoff_first.count(), 1, kMax},
      {"backoff_last", backoff_last.count(), backoff_first.count(), kMax},
      {"prefill_stall", prefill_stall.count(), 1, kMax},
      {"decode_stall", decode_stall.count(), 1, kMax},
      {"commit_grace", commit_grace.count(), 0, kMax},
  };
  for (const auto& field : fields) {
    Status status = check_option(field.name, field.value, field.low, field.high);
    if (!status.is_ok()) {
      return status;
    }
  }
  TESSERA_RETURN_IF_ERROR(check_rate("retry_ratio", retry_ratio, 0.0, 1.0));
  TESSERA_RETURN_IF_ERROR(check_rate("retry_burst", retry_burst, 1.0, 1e9));
  return check_rate("retry_floor_per_second", retry_floor_per_second, 0.1, 1e9);
}

}  // namespace tessera::router
