#include "server/http/server_core.h"

#include <exception>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "server/http/connection.h"

namespace tessera::http {

ServerCore::ServerCore(const HttpServerOptions& options,
                       Handler handler,
                       ErrorBody error_body,
                       std::shared_ptr<LoopInbox> inbox)
    : options_(options),
      handler_(std::move(handler)),
      error_body_(std::move(error_body)),
      inbox_(std::move(inbox)) {}

void ServerCore::handle(Request request, std::shared_ptr<Exchange> exchange) const {
  try {
    handler_(std::move(request), std::move(exchange));
  } catch (const std::exception& error) {
    log_error("http_handler_threw", "what", error.what());  // the dropped exchange answers 500
  }
}

std::string ServerCore::error_response(int status, std::string_view message) const {
  Response response;
  response.status = status;
  try {
    response.body = error_body_(status, message);
  } catch (const std::exception& error) {
    log_error("http_error_body_threw", "what", error.what());
  }
  ReplyForm form;
  form.is_keep_alive = false;
  return serialize_response(response, form);
}

void ServerCore::add(const std::shared_ptr<Connection>& connection) {
  connections_.insert(connection);
  count_connections();
}

void ServerCore::remove(const std::shared_ptr<Connection>& connection) {
  connections_.erase(connection);
  count_connections();
}

void ServerCore::count_connections() {
  const auto count = static_cast<int64_t>(connections_.size());
  num_connections_.store(count, std::memory_order_relaxed);
  if (options_.open_connections != nullptr) {
    options_.open_connections->set(count);
  }
}

void ServerCore::change_busy(int delta) {
  num_busy_ += delta;
  if (num_busy_ > 0 || !is_ending_) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    is_drained_ = true;
  }
  drained_.notify_all();
}

void ServerCore::announce_drain() {
  inbox_->start_draining();
  const std::vector<std::shared_ptr<Connection>> snapshot(connections_.begin(), connections_.end());
  for (const std::shared_ptr<Connection>& connection : snapshot) {
    connection->close_if_idle();
  }
}

void ServerCore::start_drain() {
  announce_drain();
  is_ending_ = true;
  change_busy(0);
}

void ServerCore::abort_all() {
  const std::vector<std::shared_ptr<Connection>> snapshot(connections_.begin(), connections_.end());
  for (const std::shared_ptr<Connection>& connection : snapshot) {
    connection->abort();
  }
}

bool ServerCore::wait_drained_blocking(Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto is_drained = [this] { return is_drained_; };
  if (deadline.is_infinite()) {
    drained_.wait(lock, is_drained);
    return true;
  }
  return drained_.wait_until(lock, deadline.at(), is_drained);
}

}  // namespace tessera::http
