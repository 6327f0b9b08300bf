#include "server/http/http_server.h"

#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <pthread.h>

#include "engine/base/log.h"
#include "server/http/listener.h"
#include "server/http/loop_inbox.h"
#include "server/http/server_core.h"

namespace tessera::http {
namespace {

namespace asio = boost::asio;
using Endpoints = std::vector<asio::ip::tcp::endpoint>;

Result<Endpoints> resolve(const HttpServerOptions& options) {
  std::string host = options.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty()) {
    return invalid_argument("http host is empty");
  }
  asio::io_context scratch;
  asio::ip::tcp::resolver resolver(scratch);
  ErrorCode error;
  const auto found =
      resolver.resolve(host, std::to_string(options.port), asio::ip::resolver_base::passive, error);
  if (error || found.empty()) {
    return invalid_argument(str_cat("cannot resolve http host '", host, "': ", error.message()));
  }
  Endpoints endpoints;
  for (const auto& entry : found) {
    endpoints.push_back(entry.endpoint());
  }
  return endpoints;
}

}  // namespace

class HttpServer::Impl final {
 public:
  Impl(const HttpServerOptions& options, Handler handler, ErrorBody error_body)
      : inbox_(std::make_shared<LoopInbox>(loop_)),
        core_(options, std::move(handler), std::move(error_body), inbox_) {}

  ~Impl() {
    if (thread_.joinable()) {
      inbox_->post([this] { stop(); });
      thread_.join();
    }
    inbox_->close();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// All addresses the host resolves to. One that this machine does not have ("localhost" without
  /// IPv6) is left out, as long as another one works; one that is in use is an error, unless the
  /// port was chosen here.
  Status listen(const Endpoints& endpoints) {
    Status failure;
    for (asio::ip::tcp::endpoint endpoint : endpoints) {
      const bool is_port_fixed = endpoint.port() != 0;
      if (port_ != 0) {
        endpoint.port(port_);
      }
      Result<Acceptor> acceptor = Listener::bind(loop_, endpoint);
      if (!acceptor.is_ok()) {
        failure = unavailable(acceptor.status().message());
        if (is_port_fixed && acceptor.status().code() != StatusCode::kNotFound) {
          return failure;
        }
        log_warning("http_listen_failed", "message", failure.message());
        continue;
      }
      port_ = acceptor.value().local_endpoint().port();
      listeners_.push_back(std::make_shared<Listener>(std::move(acceptor).value(), core_));
    }
    return listeners_.empty() ? failure : Status::ok();
  }

  void start() {
    for (const std::shared_ptr<Listener>& listener : listeners_) {
      listener->accept();
    }
    thread_ = std::jthread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "http");
  }

  [[nodiscard]] uint16_t port() const noexcept { return port_; }
  [[nodiscard]] const ServerCore& core() const noexcept { return core_; }

  void announce_drain() {
    inbox_->post([this] { core_.announce_drain(); });
  }
  [[nodiscard]] bool drain_blocking(Deadline deadline) {
    inbox_->post([this] {
      close_listeners();
      core_.start_drain();
    });
    return core_.wait_drained_blocking(deadline);
  }

 private:
  void run() {
    while (!loop_.stopped()) {
      try {
        loop_.run();
      } catch (const std::exception& error) {
        log_error("http_loop_threw", "what", error.what());
      }
    }
  }

  void close_listeners() {
    for (const std::shared_ptr<Listener>& listener : listeners_) {
      listener->close();
    }
    listeners_.clear();
  }

  void stop() {
    close_listeners();
    core_.abort_all();
    loop_.stop();
  }

  asio::io_context loop_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(loop_);
  std::shared_ptr<LoopInbox> inbox_;
  ServerCore core_;
  std::vector<std::shared_ptr<Listener>> listeners_;  // HTTP thread only, once started
  uint16_t port_ = 0;
  std::jthread thread_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options,
                                                      Handler handler,
                                                      ErrorBody error_body) {
  TESSERA_TRY(const Endpoints endpoints, resolve(options));
  auto impl = std::make_unique<Impl>(options, std::move(handler), std::move(error_body));
  TESSERA_RETURN_IF_ERROR(impl->listen(endpoints));
  impl->start();
  log_info("http_listening", "host", options.host, "port", impl->port());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

uint16_t HttpServer::port() const noexcept {
  return impl_->port();
}

void HttpServer::announce_drain() {
  impl_->announce_drain();
}

bool HttpServer::drain_blocking(Deadline deadline) {
  return impl_->drain_blocking(deadline);
}

int64_t HttpServer::num_connections_approx() const noexcept {
  return impl_->core().num_connections();
}

}  // namespace tessera::http
