// Settings of the public gRPC API. Plain data, immutable after start.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "server/rpc/service_limits.h"

namespace tessera::rpc {

struct InferenceOptions {
  std::vector<std::string> served_model_names;  ///< at least one
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;  ///< of the model
  int64_t max_choices = 16;
  int64_t max_top_logprobs = 20;
  std::chrono::milliseconds request_timeout{0};  ///< 0: none but the client's deadline
  /// True for a call with this key ("": the call brings none). Any thread, must not block. Empty:
  /// open.
  std::function<bool(std::string_view key)> allows_key;
  size_t num_text_threads = 1;  ///< render and tokenise
  size_t max_text_jobs = 256;   ///< waiting; above: RESOURCE_EXHAUSTED
  int64_t max_text_job_bytes = int64_t{64} << 20;
  ServiceLimits limits;
};

}  // namespace tessera::rpc
