// Connections to one HTTP server, kept open between requests. Private to the HTTP target.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "server/http/asio_types.h"

namespace tessera::bench {

struct HttpConnection {
  explicit HttpConnection(boost::asio::io_context& loop) : socket(loop.get_executor()) {}

  http::Stream socket;
  /// Unread bytes come first, what arrives behind them: more than any header, or chunk's, needs.
  std::array<char, 8192> bytes{};
  size_t num_unread = 0;
};

/// Idle connections, the last used first. One lane's thread.
class ConnectionPool final {
 public:
  /// Null when none is idle.
  [[nodiscard]] std::unique_ptr<HttpConnection> take() {
    if (idle_.empty()) {
      return nullptr;
    }
    std::unique_ptr<HttpConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
  }
  void put_back(std::unique_ptr<HttpConnection> connection) {
    idle_.push_back(std::move(connection));
  }

 private:
  std::vector<std::unique_ptr<HttpConnection>> idle_;  // no more than were busy at once
};

}  // namespace tessera::bench
