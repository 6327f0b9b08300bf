// The OpenAI-style HTTP API: routes, keys, and the parts that answer. See README.md here.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/metrics.h"
#include "engine/base/result.h"
#include "engine/chat/chat_template.h"
#include "engine/request/generation_service.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/http/exchange.h"
#include "server/metrics/family_list.h"
#include "server/openai/options.h"

namespace tessera::openai {

class OpenAiFrontend final {
 public:
  /// All of these outlive the front end.
  struct Parts {
    GenerationService& service;
    const Tokenizer& tokenizer;
    /// Adds the families of what is behind `service`. Any thread.
    std::function<void(metrics::FamilyList&)> add_service_families;
    const ChatTemplate* chat_template = nullptr;  ///< null: chat requests are refused
    /// What is behind `service`, for /cluster; none: 404. Any thread.
    std::function<std::string()> cluster_json{};
  };

  /// Errors: INVALID_ARGUMENT (no model name, max_model_len or thread count below 1).
  [[nodiscard]] static Result<std::unique_ptr<OpenAiFrontend>> create(OpenAiOptions options,
                                                                      const Parts& parts);
  /// Waits for prompt jobs that run. Destroy the HTTP server first; the engine may go later, its
  /// calls then end in the sinks.
  ~OpenAiFrontend();
  OpenAiFrontend(const OpenAiFrontend&) = delete;
  OpenAiFrontend& operator=(const OpenAiFrontend&) = delete;

  /// An http::Handler. HTTP thread; never blocks.
  void handle(http::Request request, std::shared_ptr<http::Exchange> exchange);
  /// The same for the listener that only operators reach: their routes and probes, without a key.
  /// May run beside handle().
  void handle_operator(http::Request request, std::shared_ptr<http::Exchange> exchange);
  /// For the HTTP server in front of handle() to count in; shown by /metrics.
  [[nodiscard]] Gauge& open_connections() noexcept;
  /// Requests from now on need one of these keys; none opens the server. Any thread.
  void replace_api_keys(const std::vector<std::string>& keys);

 private:
  class Impl;
  explicit OpenAiFrontend(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// An http::ErrorBody: OpenAI's shape for the errors that the HTTP server finds by itself.
[[nodiscard]] std::string http_error_body(int status, std::string_view message);

}  // namespace tessera::openai
