// One request over HTTP: connect or take an idle connection, write, read events until the answer
// ends, within a deadline. Lives until its last handler has run. Private to the HTTP target.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "engine/base/metrics.h"
#include "server/bench/answer_reader.h"
#include "server/bench/http_answer.h"
#include "server/bench/http_connection.h"
#include "server/bench/target.h"

namespace tessera::bench {

class HttpExchange final : public Exchange, public std::enable_shared_from_this<HttpExchange> {
 public:
  /// All outlive the exchange.
  struct Parts {
    boost::asio::io_context& loop;
    ConnectionPool& pool;
    const boost::asio::ip::tcp::endpoint& server;
    std::chrono::milliseconds timeout;
    Counter& num_events;
  };
  HttpExchange(const Parts& parts, std::string request);

  void start(std::function<void()> on_done) override;
  void stop(Outcome outcome) override;

 private:
  void connect();
  void write();
  void read();
  void on_bytes(size_t num_bytes);
  void on_lost(const http::ErrorCode& error);
  void on_timeout();
  void wait(Clock::time_point deadline);
  [[nodiscard]] bool end_if_over();
  void end(Outcome outcome, std::string error);
  void end_whole();

  const Parts parts_;
  std::string request_;
  AnswerReader reader_;
  HttpAnswer answer_;
  http::Timer timer_;
  std::unique_ptr<HttpConnection> connection_;
  std::function<void()> on_done_;
  Clock::time_point deadline_;
  bool is_reused_ = false;  // the connection had carried another request
  bool is_connecting_ = false;
  bool is_ended_ = false;
};

}  // namespace tessera::bench
