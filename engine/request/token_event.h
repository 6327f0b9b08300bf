// What the engine tells the outside about a request.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace tessera {

enum class FinishReason : uint8_t {
  kStop,    ///< an end token or one of stop_token_ids
  kLength,  ///< max_tokens or the model's context is reached
};

/// One generated token of one choice. A finishing token (end token) is reported too, with
/// `finish_reason` and, when a stop_token_id matched, `stop_token_id`.
struct TokenEvent {
  int32_t choice = 0;
  int64_t index = 0;  ///< tokens of this choice generated before this one
  int32_t token_id = 0;
  float logprob = 0.0F;  ///< raw log-softmax; valid when log-probabilities were asked for
  std::vector<std::pair<int32_t, float>> top_logprobs;  ///< best first
  std::optional<FinishReason> finish_reason;
  std::optional<int32_t> stop_token_id;
  int64_t num_cached_tokens = 0;  ///< prompt tokens found in the prefix cache
};

/// Receives the events of one request. Calls come from one thread at a time, must not block and
/// must not call back into the service. After the last choice finished, or on_error, no call
/// follows.
class TokenSink {
 public:
  TokenSink() = default;
  virtual ~TokenSink() = default;
  TokenSink(const TokenSink&) = delete;
  TokenSink& operator=(const TokenSink&) = delete;

  virtual void on_token(const TokenEvent& event) = 0;
  /// The request ends here without a result: UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL.
  virtual void on_error(const Status& status) = 0;
};

}  // namespace tessera
