#include "server/bench/probe.h"

#include <optional>
#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <nlohmann/json.hpp>

#include "engine/base/text.h"
#include "server/bench/answer_reader.h"
#include "server/bench/http_target.h"
#include "server/http/asio_types.h"

namespace tessera::bench {
namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using asio::ip::tcp;

constexpr std::chrono::seconds kPatience{10};
constexpr size_t kMaxBody = size_t{1} << 20;

/// One GET, step by step on a loop of its own, which is run for kPatience at most.
class Probe final {
 public:
  explicit Probe(const BenchSettings& settings)
      : settings_(settings),
        resolver_(loop_.get_executor()),
        socket_(loop_.get_executor()),
        request_(request_head(settings,
                              str_cat("GET ", settings.target.base_path, "/v1/models HTTP/1.1")) +
                 "Connection: close\r\n\r\n") {
    parser_.body_limit(kMaxBody);
  }

  [[nodiscard]] Status run_blocking() {
    resolver_.async_resolve(settings_.target.host,
                            std::to_string(settings_.target.port),
                            [this](const http::ErrorCode& error, const auto& found) {
                              if (!stopped(error, "cannot be resolved")) {
                                connect(found);
                              }
                            });
    loop_.run_for(kPatience);
    if (!outcome_.has_value()) {
      return unavailable(str_cat(name(), ": no answer within ", kPatience.count(), " s"));
    }
    return *outcome_;
  }

  [[nodiscard]] const tcp::endpoint& endpoint() const noexcept { return endpoint_; }
  [[nodiscard]] const beast_http::response<beast_http::string_body>& response() const {
    return parser_.get();
  }
  [[nodiscard]] std::string name() const {
    return str_cat(settings_.target.host, ":", settings_.target.port);
  }

 private:
  using Resolver = asio::ip::basic_resolver<tcp, http::Executor>;

  [[nodiscard]] bool stopped(const http::ErrorCode& error, const char* what) {
    if (error) {
      outcome_ = unavailable(str_cat(name(), " ", what, ": ", error.message()));
    }
    return static_cast<bool>(error);
  }
  void connect(const Resolver::results_type& found) {
    asio::async_connect(
        socket_, found, [this](const http::ErrorCode& error, const tcp::endpoint& endpoint) {
          endpoint_ = endpoint;
          if (!stopped(error, "cannot be reached")) {
            ask();
          }
        });
  }
  void ask() {
    asio::async_write(
        socket_, asio::buffer(request_), [this](const http::ErrorCode& error, size_t) {
          if (!stopped(error, "does not take a request")) {
            read();
          }
        });
  }
  void read() {
    beast_http::async_read(socket_, buffer_, parser_, [this](const http::ErrorCode& error, size_t) {
      if (!stopped(error, "does not answer as an HTTP server")) {
        outcome_ = Status::ok();
      }
    });
  }

  const BenchSettings& settings_;
  asio::io_context loop_{1};
  Resolver resolver_;
  http::Stream socket_;
  const std::string request_;
  tcp::endpoint endpoint_;
  boost::beast::flat_buffer buffer_;
  beast_http::response_parser<beast_http::string_body> parser_;
  std::optional<Status> outcome_;
};

std::string first_model(const std::string& body) {
  const auto list = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!list.is_object() || !list.contains("data") || !list["data"].is_array() ||
      list["data"].empty()) {
    return "";
  }
  const auto& first = list["data"].front();
  const bool has_id = first.is_object() && first.contains("id") && first["id"].is_string();
  return has_id ? first["id"].get<std::string>() : "";
}

}  // namespace

Result<HttpServer> probe_http_blocking(const BenchSettings& settings) {
  Probe probe(settings);
  TESSERA_RETURN_IF_ERROR(probe.run_blocking());
  const auto& response = probe.response();
  const unsigned status = response.result_int();
  if (status == 401 || status == 403) {
    return Status(StatusCode::kUnauthenticated,
                  str_cat(probe.name(), ": HTTP ", status, ": give --api-key"));
  }
  HttpServer server{.endpoint = probe.endpoint(), .model = {}};
  if (status == 200) {
    server.model = first_model(response.body());
  }
  if (server.model.empty() && settings.model.empty()) {
    return invalid_argument(str_cat(probe.name(),
                                    settings.target.base_path,
                                    "/v1/models names no model (HTTP ",
                                    status,
                                    "): is this the right URL? If so, give --model"));
  }
  return server;
}

}  // namespace tessera::bench
