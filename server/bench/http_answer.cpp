#include "server/bench/http_answer.h"

#include <algorithm>
#include <cstdint>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/none.hpp>

#include "engine/base/text.h"

namespace tessera::bench {
namespace {

namespace beast = boost::beast;

// Of a body that is no event stream: enough for an error's message.
constexpr size_t kMaxOtherBody = 4096;
constexpr uint32_t kMaxHeaderBytes = 8000;

}  // namespace

class HttpAnswer::Parser final : public beast::http::basic_parser<false> {
 public:
  explicit Parser(AnswerReader& reader) : reader_(reader) {
    eager(true);
    body_limit(boost::none);  // streams are as long as they are; what is kept is bounded below
    header_limit(kMaxHeaderBytes);
  }

  size_t feed(std::string_view bytes) {
    size_t consumed = 0;
    while (consumed < bytes.size() && !is_done() && error_.empty()) {
      beast::error_code code;
      const std::string_view rest = bytes.substr(consumed);
      const size_t taken = put(boost::asio::buffer(rest.data(), rest.size()), code);
      consumed += taken;
      if (code && code != beast::http::error::need_more) {
        fail("bad HTTP response: " + code.message());
      }
      if (code || taken == 0) {
        break;
      }
    }
    return consumed;
  }
  void feed_end() {
    if (is_done() || !got_some() || !error_.empty()) {
      return;
    }
    beast::error_code code;
    put_eof(code);
  }

  [[nodiscard]] std::string error() const {
    if (!error_.empty()) {
      return error_;
    }
    if (is_header_done() && status_ != 200) {
      const bool is_whole = is_done() || other_body_.size() >= kMaxOtherBody;
      return is_whole ? str_cat("HTTP ", status_, ": ", error_message(other_body_)) : "";
    }
    if (is_header_done() && !is_stream_) {
      return str_cat("not an event stream: ", content_type_.empty() ? "no type" : content_type_);
    }
    return reader_.error();
  }

 protected:
  void on_request_impl(beast::http::verb /*method*/,
                       beast::string_view /*method_text*/,
                       beast::string_view /*target*/,
                       int /*version*/,
                       beast::error_code& /*error*/) override {}
  void on_response_impl(int code,
                        beast::string_view /*reason*/,
                        int /*version*/,
                        beast::error_code& /*error*/) override {
    status_ = code;
  }
  void on_field_impl(beast::http::field name,
                     beast::string_view /*name_text*/,
                     beast::string_view value,
                     beast::error_code& /*error*/) override {
    if (name == beast::http::field::content_type) {
      content_type_.assign(value.data(), std::min<size_t>(value.size(), 100));
    }
  }
  void on_header_impl(beast::error_code& /*error*/) override {
    is_stream_ = beast::iequals(content_type_.substr(0, content_type_.find(';')), kStreamType);
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/,
                         beast::error_code& /*error*/) override {}
  std::size_t on_body_impl(beast::string_view body, beast::error_code& /*error*/) override {
    take({body.data(), body.size()});
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t /*size*/,
                            beast::string_view /*extensions*/,
                            beast::error_code& /*error*/) override {}
  std::size_t on_chunk_body_impl(std::uint64_t /*remaining*/,
                                 beast::string_view body,
                                 beast::error_code& /*error*/) override {
    take({body.data(), body.size()});
    return body.size();
  }
  void on_finish_impl(beast::error_code& /*error*/) override {}

 private:
  static constexpr const char* kStreamType = "text/event-stream";

  void take(std::string_view body) {
    if (status_ == 200 && is_stream_) {
      if (!events_.feed(body, reader_)) {
        fail("event too long");
      }
      return;
    }
    other_body_ += body.substr(0, kMaxOtherBody - std::min(kMaxOtherBody, other_body_.size()));
  }
  void fail(std::string error) {
    if (error_.empty()) {
      error_ = std::move(error);
    }
  }

  AnswerReader& reader_;
  SseParser events_;
  std::string content_type_;
  std::string other_body_;
  std::string error_;
  int status_ = 0;
  bool is_stream_ = false;
};

HttpAnswer::HttpAnswer(AnswerReader& reader) : parser_(std::make_unique<Parser>(reader)) {}

HttpAnswer::~HttpAnswer() = default;

size_t HttpAnswer::feed(std::string_view bytes) {
  return parser_->feed(bytes);
}

void HttpAnswer::feed_end() {
  parser_->feed_end();
}

bool HttpAnswer::is_complete() const noexcept {
  return parser_->is_done();
}

bool HttpAnswer::is_reusable() const {
  return parser_->is_done() && parser_->keep_alive();
}

std::string HttpAnswer::error() const {
  return parser_->error();
}

}  // namespace tessera::bench
