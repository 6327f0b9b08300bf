// The way back for one request: adds the request id, counts the answer. A value; any thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "engine/request/generation_request.h"
#include "server/http/exchange.h"
#include "server/openai/frontend_metrics.h"
#include "server/openai/protocol/api_error.h"

namespace tessera::openai {

class Reply final {
 public:
  using Clock = std::chrono::steady_clock;

  /// `client_id` is the id of the request's header, "" to make one. `metrics` outlives the reply.
  Reply(std::shared_ptr<http::Exchange> exchange,
        RouteId route,
        std::string client_id,
        const TraceContext& trace,
        FrontendMetrics& metrics)
      : exchange_(std::move(exchange)),
        route_(route),
        is_id_generated_(client_id.empty()),
        request_id_(is_id_generated_ ? RequestId::random().to_string() : std::move(client_id)),
        trace_(trace),
        metrics_(&metrics) {}

  void respond(http::Response response) const {
    metrics_->count_response(route_, response.status);
    response.headers.emplace_back("x-request-id", request_id_);
    exchange_->respond(std::move(response));
  }
  void fail(const ApiError& error) const { respond(error_response(error)); }
  void begin_stream() const {
    metrics_->count_response(route_, 200);
    exchange_->begin_stream({{"x-request-id", request_id_}});
  }

  /// Takes the id of the request's body, unless a header gave one.
  void adopt_request_id(const std::string& id) {
    if (is_id_generated_ && !id.empty()) {
      request_id_ = id;
    }
  }
  [[nodiscard]] http::Exchange& exchange() const noexcept { return *exchange_; }
  [[nodiscard]] const std::shared_ptr<http::Exchange>& shared_exchange() const noexcept {
    return exchange_;
  }
  [[nodiscard]] const std::string& request_id() const noexcept { return request_id_; }
  [[nodiscard]] const TraceContext& trace() const noexcept { return trace_; }
  [[nodiscard]] FrontendMetrics& metrics() const noexcept { return *metrics_; }
  [[nodiscard]] double seconds_since_start() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  std::shared_ptr<http::Exchange> exchange_;  // shared with the connection
  RouteId route_;
  bool is_id_generated_;
  std::string request_id_;
  TraceContext trace_;
  FrontendMetrics* metrics_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace tessera::openai
