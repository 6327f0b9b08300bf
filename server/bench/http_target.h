// An OpenAI-style HTTP server as a target: one connection an exchange, kept for the next one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <boost/asio/ip/tcp.hpp>

#include "engine/base/metrics.h"
#include "server/bench/http_connection.h"
#include "server/bench/target.h"

namespace tessera::bench {

/// One lane's thread.
class HttpTarget final : public Target {
 public:
  /// `num_events` counts events with text; it and the others outlive the target.
  HttpTarget(const BenchSettings& settings,
             const boost::asio::ip::tcp::endpoint& server,
             boost::asio::io_context& loop,
             Counter& num_events);

  [[nodiscard]] std::shared_ptr<Exchange> prepare(const Prompt& prompt, int64_t index) override;
  void probe_receiver() override {}
  [[nodiscard]] Result<std::vector<float>> end_receiver_blocking(
      const Deadline& /*deadline*/) override {
    return std::vector<float>();
  }

 private:
  const BenchSettings& settings_;
  const boost::asio::ip::tcp::endpoint server_;
  boost::asio::io_context& loop_;
  Counter& num_events_;
  const std::string head_;  // of every request, up to its number
  ConnectionPool pool_;
};

/// The lines that every request begins with: "POST ...", Host, keys, types.
[[nodiscard]] std::string request_head(const BenchSettings& settings, std::string_view line);

}  // namespace tessera::bench
