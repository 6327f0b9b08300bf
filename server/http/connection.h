// One client connection: reads a request, hands it to the handler, writes the answer, and again.
// Reading goes on while an answer is computed, so that a client that leaves is noticed at once.
// HTTP thread only. Kept alive by ServerCore's set and by its pending operations.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/asio_types.h"
#include "server/http/reply_channel.h"
#include "server/http/request_parser.h"
#include "server/http/server_core.h"

namespace tessera::http {

class Connection final : public std::enable_shared_from_this<Connection>, private ReplySink {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(Stream stream, ServerCore& core, std::string remote_address);

  void start();
  /// For a connection above the limit: 503, then the end.
  void start_rejected();
  void close_if_idle();
  /// Ends the connection with a reset. An open exchange learns that its client is gone.
  void abort();

 private:
  enum class Phase : uint8_t {
    kIdle,       ///< waiting for the first byte of a request
    kHeader,     ///< reading a request's header
    kBody,       ///< reading its body
    kAnswering,  ///< the handler's turn: waiting for, or sending, the answer
    kRefusing,   ///< sending an error response of our own, the last bytes to go out
    kLingering,  ///< all sent; discarding input so that the client can read the answer
    kClosed,
  };

  void read();
  void on_read(const ErrorCode& error, size_t num_bytes);
  void on_read_end(const ErrorCode& error);
  void parse();
  void dispatch();
  void refuse(int status, std::string_view message);

  void on_reply_ready() override;
  void pump();
  void write_some();
  void on_write(const ErrorCode& error, size_t num_bytes);
  void on_all_written();
  void finish_answer();
  void linger();
  void close();

  void enter(Phase phase, Clock::time_point deadline);
  void set_deadline(Clock::time_point deadline);
  void start_timer(Clock::time_point at);
  void on_timer(const ErrorCode& error);
  void on_deadline();

  Stream stream_;
  Timer timer_;
  ServerCore& core_;
  const std::string remote_address_;
  Phase phase_ = Phase::kIdle;

  std::array<char, 8192> read_buffer_;
  std::string input_;  // read and not yet parsed
  std::optional<RequestParser> parser_;
  bool is_reading_ = false;
  bool has_seen_eof_ = false;

  std::shared_ptr<ReplyChannel> reply_;
  std::string outgoing_;   // to be written next
  std::string in_flight_;  // being written
  size_t num_sent_ = 0;    // of in_flight_
  bool is_writing_ = false;

  // One deadline at a time; the timer may fire earlier and is then set again, which spares the
  // timer queue on every event of a stream.
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point timer_at_ = Clock::time_point::max();
};

}  // namespace tessera::http
