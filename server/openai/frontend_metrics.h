// What the HTTP front end counts. Written by the HTTP and prompt threads, read by /metrics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/metrics.h"

namespace tessera::openai {

/// Routes as metric labels: a fixed set, so that clients cannot make new series.
enum class RouteId : uint8_t {
  kChat,
  kCompletion,
  kModels,
  kTokenize,
  kDetokenize,
  kHealth,
  kVersion,
  kMetrics,
  kConsole,
  kCluster,
  kOther,
};
inline constexpr std::array<std::string_view, 11> kRouteNames = {"chat_completions",
                                                                 "completions",
                                                                 "models",
                                                                 "tokenize",
                                                                 "detokenize",
                                                                 "health",
                                                                 "version",
                                                                 "metrics",
                                                                 "console",
                                                                 "cluster",
                                                                 "other"};
inline constexpr std::array<std::string_view, 3> kStatusClassNames = {"2xx", "4xx", "5xx"};

struct FrontendMetrics {
  std::array<std::array<Counter, kStatusClassNames.size()>, kRouteNames.size()> responses;
  Gauge open_connections;  ///< to the public listener
  Gauge open_streams;
  Gauge prompt_jobs;
  Counter prompt_jobs_rejected;
  Counter client_disconnects;  ///< before the answer was complete
  Counter stream_errors;       ///< error events after the headers of a stream
  Counter stop_strings_matched;
  Counter unknown_fields;
  LatencyHistogram prompt_seconds;       ///< parse, render, tokenise, and the wait for a thread
  LatencyHistogram first_chunk_seconds;  ///< of streams, since the request was read
  LatencyHistogram request_seconds;      ///< of generation requests, since the request was read

  void count_response(RouteId route, int status) noexcept {
    const size_t status_class = status < 400 ? 0 : (status < 500 ? 1 : 2);
    responses[static_cast<size_t>(route)][status_class].add();
  }
};

}  // namespace tessera::openai
