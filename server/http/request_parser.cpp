#include "server/http/request_parser.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "engine/base/text.h"
#include "server/http/ascii.h"
#include "server/http/request_target.h"

namespace tessera::http {
namespace {

namespace beast_http = boost::beast::http;
using boost::beast::error_code;

// The smallest rest of a chunked body is "0\r\n\r\n"; Beast's parser asserts on a shorter one.
constexpr size_t kMinChunkedRest = 5;
// Chunk size line with its extension, or the trailer section.
constexpr size_t kMaxChunkLineBytes = 4096;
constexpr size_t kMaxChunkExtensionBytes = 256;
// A declared length reserves no more than this before bytes have arrived.
constexpr uint64_t kMaxReserveBytes = uint64_t{256} << 10;

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

class RequestParser::BeastParser final : public beast_http::basic_parser<true> {
 public:
  explicit BeastParser(const ParseLimits& limits) : limits_(limits) {
    // HeaderScan has applied the header's limit already.
    header_limit(static_cast<uint32_t>(
        std::min<int64_t>(limits.max_header_bytes + 1, std::numeric_limits<uint32_t>::max())));
    body_limit(static_cast<uint64_t>(limits.max_body_bytes));
  }

  [[nodiscard]] ParseFailure describe(const error_code& error) const {
    if (failure_.status != 0) {
      return failure_;
    }
    if (error == beast_http::error::body_limit) {
      return {413, str_cat("the request body exceeds ", limits_.max_body_bytes, " bytes")};
    }
    if (error == beast_http::error::header_limit) {
      return {431, "the request header is too large"};
    }
    return {400, str_cat("malformed HTTP request: ", error.message())};
  }

  Request request;
  bool is_http11 = true;
  bool expects_continue = false;

 private:
  void refuse(int status, std::string message, error_code& error) {
    failure_ = {status, std::move(message)};
    error = beast_http::error::bad_value;
  }

  void on_request_impl(beast_http::verb /*verb*/,
                       boost::beast::string_view method,
                       boost::beast::string_view target,
                       int version,
                       error_code& error) override {
    if (static_cast<int64_t>(target.size()) > limits_.max_target_bytes) {
      const std::string limit = str_cat(limits_.max_target_bytes);
      return refuse(414, "the request target exceeds " + limit + " bytes", error);
    }
    std::optional<RequestTarget> parsed = parse_request_target(view(target));
    if (!parsed.has_value()) {
      return refuse(400, "malformed request target", error);
    }
    request.method = view(method);
    request.path = std::move(parsed->path);
    request.query = std::move(parsed->query);
    is_http11 = version >= 11;
  }

  void on_response_impl(int, boost::beast::string_view, int, error_code&) override {}

  void on_field_impl(beast_http::field field,
                     boost::beast::string_view name,
                     boost::beast::string_view value,
                     error_code& error) override {
    if (is_header_complete_) {
      return;  // a trailer: nothing here uses them
    }
    check_field(field, view(value), error);
    if (!error) {
      request.headers.emplace_back(view(name), view(value));
    }
  }

  /// What Beast accepts and another server on the path may read differently.
  void check_field(beast_http::field field, std::string_view value, error_code& error) {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    if (field == beast_http::field::content_length) {
      if (num_content_lengths_++ > 0 || !std::all_of(value.begin(), value.end(), is_digit)) {
        refuse(400, "repeated or malformed Content-Length", error);
      }
    } else if (field == beast_http::field::transfer_encoding) {
      if (!equals_ignoring_case(value, "chunked") || !is_http11) {
        refuse(400, "the only supported Transfer-Encoding is chunked", error);
      }
    } else if (field == beast_http::field::host) {
      if (num_hosts_++ > 0 || value.find_first_of(" \t,/?#@\\") != std::string_view::npos) {
        refuse(400, "repeated or malformed Host", error);
      }
    } else if (field == beast_http::field::expect) {
      expects_continue = is_http11 && equals_ignoring_case(value, "100-continue");
      if (is_http11 && !expects_continue) {
        refuse(417, "the only supported expectation is 100-continue", error);
      }
    }
  }

  void on_header_impl(error_code& error) override {
    is_header_complete_ = true;
    if (is_http11 && num_hosts_ == 0) {
      refuse(400, "a request of HTTP/1.1 needs a Host header", error);
    }
  }

  void on_body_init_impl(const boost::optional<uint64_t>& length, error_code&) override {
    request.body.reserve(std::min(length.value_or(0), kMaxReserveBytes));
  }

  size_t on_body_impl(boost::beast::string_view body, error_code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }

  void on_chunk_header_impl(uint64_t /*size*/,
                            boost::beast::string_view extension,
                            error_code& error) override {
    if (extension.size() > kMaxChunkExtensionBytes ||
        std::any_of(extension.begin(), extension.end(), is_control)) {
      refuse(400, "unacceptable chunk extension", error);
    }
  }

  size_t on_chunk_body_impl(uint64_t /*remaining*/,
                            boost::beast::string_view body,
                            error_code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }

  void on_finish_impl(error_code&) override {}

  ParseLimits limits_;
  ParseFailure failure_;
  int num_content_lengths_ = 0;
  int num_hosts_ = 0;
  bool is_header_complete_ = false;
};

RequestParser::RequestParser(const ParseLimits& limits)
    : scan_(limits), parser_(std::make_unique<BeastParser>(limits)) {}

RequestParser::~RequestParser() = default;

size_t RequestParser::feed(std::string_view input) {
  size_t used = 0;
  if (state_ == State::kHeader) {
    used = feed_header(input);
  }
  if (state_ == State::kBody) {
    used += feed_body(input.substr(used));
  }
  return used;
}

size_t RequestParser::feed_header(std::string_view input) {
  const HeaderScan::State scanned = scan_.scan(input);
  if (scanned == HeaderScan::State::kNeedMore) {
    return 0;
  }
  if (scanned == HeaderScan::State::kFailed) {
    fail(scan_.failure());
    return 0;
  }
  const std::string_view header = input.substr(scan_.begin(), scan_.end() - scan_.begin());
  error_code error;
  const size_t parsed = parser_->put(boost::asio::buffer(header), error);
  if (error || parsed != header.size() || !parser_->is_header_done()) {
    fail(parser_->describe(error));
    return 0;
  }
  state_ = parser_->is_done() ? State::kComplete : State::kBody;
  parser_->eager(true);
  return scan_.end();
}

size_t RequestParser::feed_body(std::string_view input) {
  if (input.empty() || (parser_->chunked() && input.size() < kMinChunkedRest)) {
    return 0;
  }
  error_code error;
  const size_t used = parser_->put(boost::asio::buffer(input), error);
  if (error && error != beast_http::error::need_more) {
    fail(parser_->describe(error));
    return used;
  }
  if (parser_->is_done()) {
    state_ = State::kComplete;
  } else if (input.size() - used > kMaxChunkLineBytes) {
    fail({400, "a chunk header or trailer is too large"});
  }
  return used;
}

void RequestParser::fail(ParseFailure failure) {
  failure_ = std::move(failure);
  state_ = State::kFailed;
}

bool RequestParser::expects_continue() const noexcept {
  return parser_->expects_continue;
}
bool RequestParser::is_keep_alive() const {
  return parser_->keep_alive();
}
bool RequestParser::is_http11() const noexcept {
  return parser_->is_http11;
}
Request RequestParser::take_request() {
  return std::move(parser_->request);
}

}  // namespace tessera::http
