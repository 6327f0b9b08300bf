// HTTP/1.1 server on Boost.Beast: listener, connections, limits, deadlines, drain. Knows no routes.
// One I/O thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/deadline.h"
#include "engine/base/metrics.h"
#include "engine/base/result.h"
#include "server/http/exchange.h"

namespace tessera::http {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  ///< 0: any free port, see HttpServer::port
  int64_t max_request_bytes = int64_t{8} << 20;
  int64_t max_header_bytes = int64_t{32} << 10;
  int64_t max_headers = 100;
  int64_t max_target_bytes = int64_t{8} << 10;
  int64_t max_connections = 10'000;
  int64_t max_stream_buffer_bytes = int64_t{1} << 20;  ///< unsent bytes of one stream
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_timeout{30'000};
  std::chrono::milliseconds idle_timeout{75'000};
  std::chrono::milliseconds write_timeout{30'000};       ///< no progress in sending
  std::chrono::milliseconds keep_alive_comment{15'000};  ///< ": ping" on silent streams
  Gauge* open_connections = nullptr;                     ///< kept up to date; outlives the server
};

/// Called on the HTTP thread for each complete request; must not block or throw.
using Handler = std::function<void(Request request, std::shared_ptr<Exchange> exchange)>;
/// Builds the body of an error that the server itself finds (400, 408, 413, 431, 503 …).
using ErrorBody = std::function<std::string(int status, std::string_view message)>;

class HttpServer final {
 public:
  /// Binds and starts the HTTP thread. Errors: UNAVAILABLE when the address cannot be bound,
  /// INVALID_ARGUMENT for a bad host.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options,
                                                                 Handler handler,
                                                                 ErrorBody error_body);
  /// Stops at once: open exchanges are cut off.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] uint16_t port() const noexcept;
  /// Answers "Connection: close" and closes idle connections from here on, so that clients find
  /// another server; whoever still comes is answered. Any thread.
  void announce_drain();
  /// Stops accepting connections, answers "Connection: close", and waits until every open exchange
  /// has ended or `deadline`. True when all ended.
  [[nodiscard]] bool drain_blocking(Deadline deadline);
  [[nodiscard]] int64_t num_connections_approx() const noexcept;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::http
