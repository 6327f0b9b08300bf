#include "server/bench/http_exchange.h"

#include <algorithm>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

namespace tessera::bench {
namespace {

constexpr std::chrono::seconds kConnectTimeout{10};
// An answer is over with [DONE]; so long may its last chunk take, for the connection's sake.
constexpr std::chrono::seconds kLastChunkTimeout{1};

}  // namespace

HttpExchange::HttpExchange(const Parts& parts, std::string request)
    : parts_(parts),
      request_(std::move(request)),
      reader_(record(), parts.num_events),
      answer_(reader_),
      timer_(parts.loop.get_executor()) {}

void HttpExchange::start(std::function<void()> on_done) {
  on_done_ = std::move(on_done);
  record().sent = Clock::now();
  deadline_ = record().sent + parts_.timeout;
  connection_ = parts_.pool.take();
  is_reused_ = connection_ != nullptr;
  if (is_reused_) {
    wait(deadline_);
    write();
    return;
  }
  connect();
}

void HttpExchange::stop(Outcome outcome) {
  end(outcome, "");
}

void HttpExchange::connect() {
  is_connecting_ = true;
  wait(std::min(deadline_, Clock::now() + kConnectTimeout));
  connection_ = std::make_unique<HttpConnection>(parts_.loop);
  connection_->socket.async_connect(
      parts_.server, [self = shared_from_this()](const http::ErrorCode& error) {
        if (self->is_ended_) {
          return;
        }
        if (error) {
          self->end(Outcome::kFailed, "connect: " + error.message());
          return;
        }
        http::ErrorCode ignored;
        self->connection_->socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
        self->is_connecting_ = false;
        self->wait(self->deadline_);
        self->write();
      });
}

void HttpExchange::write() {
  boost::asio::async_write(connection_->socket,
                           boost::asio::buffer(request_),
                           [self = shared_from_this()](const http::ErrorCode& error, size_t) {
                             if (self->is_ended_) {
                               return;
                             }
                             if (error) {
                               self->on_lost(error);
                               return;
                             }
                             self->read();
                           });
}

void HttpExchange::read() {
  HttpConnection& connection = *connection_;
  const auto room = boost::asio::buffer(connection.bytes.data() + connection.num_unread,
                                        connection.bytes.size() - connection.num_unread);
  connection.socket.async_read_some(
      room, [self = shared_from_this()](const http::ErrorCode& error, size_t num_bytes) {
        if (self->is_ended_) {
          return;
        }
        if (error) {
          self->on_lost(error);
          return;
        }
        self->reader_.set_now(Clock::now());
        self->on_bytes(num_bytes);
      });
}

void HttpExchange::on_bytes(size_t num_bytes) {
  HttpConnection& connection = *connection_;
  const bool was_done = reader_.is_done();
  const size_t size = connection.num_unread + num_bytes;
  const size_t taken = answer_.feed({connection.bytes.data(), size});
  connection.num_unread = size - taken;
  std::copy(connection.bytes.begin() + static_cast<std::ptrdiff_t>(taken),
            connection.bytes.begin() + static_cast<std::ptrdiff_t>(size),
            connection.bytes.begin());
  if (end_if_over()) {
    return;
  }
  if (connection.num_unread == connection.bytes.size()) {
    end(Outcome::kFailed, "bad HTTP response: header too long");
    return;
  }
  if (reader_.is_done() && !was_done) {
    record().done = Clock::now();
    wait(record().done + kLastChunkTimeout);
  }
  read();
}

bool HttpExchange::end_if_over() {
  if (is_to_be_cancelled() && !reader_.is_done()) {
    end(Outcome::kCancelled, "");
    return true;
  }
  if (std::string error = answer_.error(); !error.empty()) {
    end(Outcome::kFailed, std::move(error));
    return true;
  }
  if (answer_.is_complete()) {
    end_whole();
    return true;
  }
  return false;
}

void HttpExchange::end_whole() {
  if (!reader_.is_done() && !reader_.has_finish_reason()) {
    end(Outcome::kFailed, "stream ended before [DONE]");
    return;
  }
  if (record().num_content_events == 0) {
    end(Outcome::kFailed, "answer without text");
    return;
  }
  if (answer_.is_reusable() && connection_->num_unread == 0) {
    parts_.pool.put_back(std::move(connection_));
  }
  end(Outcome::kCompleted, "");
}

void HttpExchange::on_lost(const http::ErrorCode& error) {
  const bool is_silent = record().first_byte == Clock::time_point();
  if (is_reused_ && is_silent) {
    // The server has closed an idle connection while the request was on its way.
    is_reused_ = false;
    ++record().num_resends;
    connect();
    return;
  }
  if (error == boost::asio::error::eof) {
    answer_.feed_end();
    if (end_if_over()) {
      return;
    }
  }
  if (reader_.is_done()) {
    end_whole();
    return;
  }
  const bool is_eof = error == boost::asio::error::eof;
  end(Outcome::kFailed,
      std::string(is_silent ? "no answer: " : "stream broke off: ") +
          (is_eof ? "connection closed" : error.message()));
}

void HttpExchange::wait(Clock::time_point deadline) {
  timer_.expires_at(deadline);
  timer_.async_wait([self = shared_from_this()](const http::ErrorCode& error) {
    // A timer that was set anew while this call was already queued has not expired.
    const bool is_due = Clock::now() >= self->timer_.expiry();
    if (!error && is_due && !self->is_ended_) {
      self->on_timeout();
    }
  });
}

void HttpExchange::on_timeout() {
  if (reader_.is_done()) {
    end_whole();
    return;
  }
  end(Outcome::kFailed, is_connecting_ ? "connect: timeout" : "timeout");
}

void HttpExchange::end(Outcome outcome, std::string error) {
  if (is_ended_) {
    return;
  }
  is_ended_ = true;
  timer_.cancel();
  connection_.reset();
  reader_.finish();
  record().outcome = outcome;
  record().error = std::move(error);
  if (record().done == Clock::time_point()) {
    record().done = Clock::now();
  }
  boost::asio::post(parts_.loop, std::move(on_done_));
}

}  // namespace tessera::bench
