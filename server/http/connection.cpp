#include "server/http/connection.h"

#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>

#include "engine/base/log.h"

namespace tessera::http {
namespace {

constexpr auto kNever = Connection::Clock::time_point::max();
// After the last answer: how long input is discarded, so that no reset overtakes the answer.
constexpr std::chrono::milliseconds kLingerTimeout{2000};
// Read ahead of requests that wait behind the one being answered.
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;
constexpr size_t kMaxKeptCapacity = size_t{64} << 10;

ParseLimits parse_limits(const HttpServerOptions& options) {
  ParseLimits limits;
  limits.max_header_bytes = options.max_header_bytes;
  limits.max_headers = options.max_headers;
  limits.max_target_bytes = options.max_target_bytes;
  limits.max_body_bytes = options.max_request_bytes;
  return limits;
}

void release_if_large(std::string& buffer) {
  if (buffer.empty() && buffer.capacity() > kMaxKeptCapacity) {
    buffer.shrink_to_fit();
  }
}

}  // namespace

Connection::Connection(Stream stream, ServerCore& core, std::string remote_address)
    : stream_(std::move(stream)),
      timer_(stream_.get_executor()),
      core_(core),
      remote_address_(std::move(remote_address)) {}

void Connection::start() {
  // Who connects and says nothing gets the time of a header, not that of an idle connection.
  enter(Phase::kIdle, Clock::now() + core_.options().header_timeout);
  read();
}

void Connection::start_rejected() {
  refuse(503, "too many connections");
  read();
}

void Connection::close_if_idle() {
  if (phase_ == Phase::kIdle) {
    close();
  }
}

void Connection::abort() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  ErrorCode ignored;
  stream_.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  close();
}

// --- reading ---

void Connection::read() {
  const bool is_full = phase_ == Phase::kAnswering && input_.size() >= kMaxPipelinedBytes;
  if (is_reading_ || is_full || has_seen_eof_ || phase_ == Phase::kClosed) {
    return;
  }
  is_reading_ = true;
  stream_.async_read_some(boost::asio::buffer(read_buffer_),
                          [self = shared_from_this()](const ErrorCode& error, size_t num_bytes) {
                            self->on_read(error, num_bytes);
                          });
}

void Connection::on_read(const ErrorCode& error, size_t num_bytes) {
  is_reading_ = false;
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (error) {
    on_read_end(error);
    return;
  }
  if (phase_ == Phase::kIdle || phase_ == Phase::kHeader || phase_ == Phase::kBody) {
    input_.append(read_buffer_.data(), num_bytes);
    parse();
  } else if (phase_ == Phase::kAnswering) {
    input_.append(read_buffer_.data(), num_bytes);
  }
  read();
}

void Connection::on_read_end(const ErrorCode& error) {
  has_seen_eof_ = true;
  const bool is_half_close = error == boost::asio::error::eof;
  const bool is_sending_rest =
      phase_ == Phase::kRefusing || (phase_ == Phase::kAnswering && reply_ != nullptr &&
                                     reply_->outcome() == ReplyChannel::Outcome::kEnded);
  if (!is_half_close || !is_sending_rest) {
    close();
  }
}

void Connection::parse() {
  if (!parser_.has_value()) {
    parser_.emplace(parse_limits(core_.options()));
  }
  if (phase_ == Phase::kIdle) {
    if (input_ == "\r" || input_ == "\r\n") {
      return;  // some clients end a body with an empty line; no request has begun
    }
    enter(Phase::kHeader, Clock::now() + core_.options().header_timeout);
  }
  input_.erase(0, parser_->feed(input_));
  switch (parser_->state()) {
    case RequestParser::State::kHeader:
      break;
    case RequestParser::State::kBody:
      if (phase_ == Phase::kHeader) {
        enter(Phase::kBody, Clock::now() + core_.options().body_timeout);
        if (parser_->expects_continue() && input_.empty()) {
          outgoing_ += "HTTP/1.1 100 Continue\r\n\r\n";
          pump();
        }
      }
      break;
    case RequestParser::State::kComplete:
      dispatch();
      break;
    case RequestParser::State::kFailed: {
      const ParseFailure failure = parser_->failure();
      refuse(failure.status, failure.message);
      break;
    }
  }
}

void Connection::dispatch() {
  Request request = parser_->take_request();
  request.remote_address = remote_address_;
  ReplyForm form;
  form.is_http11 = parser_->is_http11();
  form.is_head = request.method == "HEAD";
  form.is_keep_alive = parser_->is_keep_alive();
  parser_.reset();
  enter(Phase::kAnswering, kNever);
  ReplySink& sink = *this;
  reply_ = std::make_shared<ReplyChannel>(
      core_.inbox(), sink, form, core_.options().max_stream_buffer_bytes);
  core_.handle(std::move(request), reply_->make_handle());
}

/// Answers an error found here. The framing may be lost, so the connection ends with it.
void Connection::refuse(int status, std::string_view message) {
  log_debug("http_request_refused", "status", status, "message", message);
  enter(Phase::kRefusing, Clock::now() + core_.options().write_timeout);
  parser_.reset();
  input_.clear();
  outgoing_ += core_.error_response(status, message);
  pump();
}

// --- writing ---

void Connection::on_reply_ready() {
  if (phase_ != Phase::kAnswering) {
    return;
  }
  switch (reply_->outcome()) {
    case ReplyChannel::Outcome::kAbandoned:
      reply_->cut_off();
      refuse(500, "the request was dropped without an answer");
      break;
    case ReplyChannel::Outcome::kOverrun:
      log_debug("http_stream_cut_off", "remote_address", remote_address_);
      abort();
      break;
    case ReplyChannel::Outcome::kOpen:
    case ReplyChannel::Outcome::kStreaming:
    case ReplyChannel::Outcome::kEnded:
      pump();
      break;
  }
}

/// Starts the next write unless one is in flight. All events that queued up behind it leave
/// together.
void Connection::pump() {
  if (is_writing_ || phase_ == Phase::kClosed) {
    return;
  }
  if (phase_ == Phase::kAnswering) {
    reply_->take(outgoing_);
  }
  if (outgoing_.empty()) {
    on_all_written();
    return;
  }
  in_flight_.swap(outgoing_);
  num_sent_ = 0;
  is_writing_ = true;
  write_some();
}

void Connection::write_some() {
  if (phase_ == Phase::kAnswering || phase_ == Phase::kRefusing) {
    set_deadline(Clock::now() + core_.options().write_timeout);
  }
  stream_.async_write_some(
      boost::asio::buffer(in_flight_.data() + num_sent_, in_flight_.size() - num_sent_),
      [self = shared_from_this()](const ErrorCode& error, size_t num_bytes) {
        self->on_write(error, num_bytes);
      });
}

void Connection::on_write(const ErrorCode& error, size_t num_bytes) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (error) {
    close();
    return;
  }
  num_sent_ += num_bytes;
  if (num_sent_ < in_flight_.size()) {
    write_some();
    return;
  }
  is_writing_ = false;
  in_flight_.clear();
  pump();
}

void Connection::on_all_written() {
  if (phase_ == Phase::kRefusing) {
    linger();
    return;
  }
  if (phase_ != Phase::kAnswering) {
    return;
  }
  switch (reply_->outcome()) {
    case ReplyChannel::Outcome::kEnded:
      finish_answer();
      break;
    case ReplyChannel::Outcome::kStreaming:
      set_deadline(Clock::now() + core_.options().keep_alive_comment);
      break;
    case ReplyChannel::Outcome::kOpen:
    case ReplyChannel::Outcome::kAbandoned:
    case ReplyChannel::Outcome::kOverrun:
      set_deadline(kNever);
      break;
  }
}

void Connection::finish_answer() {
  const bool is_keep_alive = reply_->is_keep_alive() && !core_.is_draining() && !has_seen_eof_;
  reply_->detach();
  reply_.reset();
  release_if_large(outgoing_);
  release_if_large(in_flight_);
  if (!is_keep_alive) {
    linger();
    return;
  }
  enter(Phase::kIdle, Clock::now() + core_.options().idle_timeout);
  if (!input_.empty()) {
    parse();
  }
  read();
}

void Connection::linger() {
  if (has_seen_eof_) {
    close();
    return;
  }
  ErrorCode ignored;
  stream_.shutdown(Stream::shutdown_send, ignored);
  enter(Phase::kLingering, Clock::now() + kLingerTimeout);
  input_.clear();
  read();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  const std::shared_ptr<Connection> self = shared_from_this();
  enter(Phase::kClosed, kNever);
  if (reply_ != nullptr) {
    reply_->detach();
    reply_->cut_off();
    reply_.reset();
  }
  timer_.cancel();
  ErrorCode ignored;
  stream_.close(ignored);
  core_.remove(self);
}

// --- phases and time ---

void Connection::enter(Phase phase, Clock::time_point deadline) {
  const auto is_busy = [](Phase p) {
    return p == Phase::kHeader || p == Phase::kBody || p == Phase::kAnswering ||
           p == Phase::kRefusing;
  };
  const int delta = static_cast<int>(is_busy(phase)) - static_cast<int>(is_busy(phase_));
  phase_ = phase;
  set_deadline(deadline);
  if (delta != 0) {
    core_.change_busy(delta);
  }
}

void Connection::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  if (deadline < timer_at_) {
    start_timer(deadline);
  }
}

void Connection::start_timer(Clock::time_point at) {
  timer_at_ = at;
  timer_.expires_at(at);
  timer_.async_wait([self = shared_from_this()](const ErrorCode& error) { self->on_timer(error); });
}

void Connection::on_timer(const ErrorCode& error) {
  if (error || phase_ == Phase::kClosed) {
    return;
  }
  timer_at_ = kNever;
  if (deadline_ <= Clock::now()) {
    on_deadline();
  } else if (deadline_ != kNever) {
    start_timer(deadline_);
  }
}

void Connection::on_deadline() {
  switch (phase_) {
    case Phase::kHeader:
      refuse(408, "the request header did not arrive in time");
      break;
    case Phase::kBody:
      refuse(408, "the request body did not arrive in time");
      break;
    case Phase::kAnswering:
      if (is_writing_) {
        log_debug("http_write_timeout", "remote_address", remote_address_);
        abort();
      } else {
        reply_->ping();
        pump();
      }
      break;
    case Phase::kRefusing:
      abort();
      break;
    case Phase::kIdle:
    case Phase::kLingering:
    case Phase::kClosed:
      close();
      break;
  }
}

}  // namespace tessera::http
