// What all connections of a server share: options, handler, the set of open connections and the
// drain. HTTP thread only, except where stated. Lives longer than every connection.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>

#include "engine/base/deadline.h"
#include "server/http/exchange.h"
#include "server/http/http_server.h"
#include "server/http/loop_inbox.h"
#include "server/http/response_writer.h"

namespace tessera::http {

class Connection;

class ServerCore final {
 public:
  ServerCore(const HttpServerOptions& options,
             Handler handler,
             ErrorBody error_body,
             std::shared_ptr<LoopInbox> inbox);
  ServerCore(const ServerCore&) = delete;
  ServerCore& operator=(const ServerCore&) = delete;

  [[nodiscard]] const HttpServerOptions& options() const noexcept { return options_; }
  [[nodiscard]] const std::shared_ptr<LoopInbox>& inbox() const noexcept { return inbox_; }
  [[nodiscard]] bool is_draining() const noexcept { return inbox_->is_draining(); }

  /// Calls the handler; an exception from it ends here.
  void handle(Request request, std::shared_ptr<Exchange> exchange) const;
  /// The bytes of an error response of the server's own, with "Connection: close".
  [[nodiscard]] std::string error_response(int status, std::string_view message) const;

  void add(const std::shared_ptr<Connection>& connection);
  void remove(const std::shared_ptr<Connection>& connection);
  /// A connection begins or ends the work on a request (from its first byte to the last of the
  /// answer).
  void change_busy(int delta);

  /// Closes idle connections; busy ones, and those still to come, close after their answer.
  void announce_drain();
  /// The same, and nothing more comes: wait_drained_blocking() ends with the last answer.
  void start_drain();
  void abort_all();
  /// Any thread.
  [[nodiscard]] bool wait_drained_blocking(Deadline deadline);
  [[nodiscard]] int64_t num_connections() const noexcept {
    return num_connections_.load(std::memory_order_relaxed);
  }

 private:
  void count_connections();

  const HttpServerOptions options_;
  const Handler handler_;
  const ErrorBody error_body_;
  const std::shared_ptr<LoopInbox> inbox_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::atomic<int64_t> num_connections_ = 0;
  int64_t num_busy_ = 0;
  bool is_ending_ = false;

  std::mutex mutex_;  // guards is_drained_
  std::condition_variable drained_;
  bool is_drained_ = false;
};

}  // namespace tessera::http
