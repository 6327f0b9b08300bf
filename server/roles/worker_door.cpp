#include "server/roles/worker_door.h"

#include <utility>

#include "engine/base/log.h"
#include "server/http/http_server.h"
#include "server/metrics/process_families.h"
#include "server/roles/role_parts.h"

namespace tessera {
namespace {

std::string status_body(const Status& status) {
  return status.is_ok() ? R"({"status":"ok"})" : str_cat(status.message(), "\n");
}

http::Response health(const Status& status) {
  http::Response response;
  response.status = status.is_ok() ? 200 : 503;
  response.content_type = status.is_ok() ? "application/json" : "text/plain; charset=utf-8";
  response.body = status_body(status);
  return response;
}

http::Response text(int status, std::string body) {
  http::Response response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(body);
  return response;
}

}  // namespace

struct WorkerDoor::State {
  Parts parts;
  std::string model_name;
  bool has_vllm_names = true;
  std::unique_ptr<http::HttpServer> http;

  [[nodiscard]] http::Response answer(const http::Request& request) const {
    if (request.method != "GET" && request.method != "HEAD") {
      return text(405, "only GET here\n");
    }
    if (request.path == "/livez") {
      return health(parts.liveness());
    }
    if (request.path == "/readyz" || request.path == "/health") {
      return health(parts.readiness());
    }
    if (request.path == "/metrics") {
      metrics::FamilyList list(model_name, has_vllm_names);
      parts.add_families(list);
      list.set_role("");
      metrics::add_process_families(list);
      http::Response response;
      response.content_type = metrics::kContentType;
      response.body = list.text();
      return response;
    }
    return text(404, "a worker answers /livez, /readyz, /health and /metrics\n");
  }
};

Result<std::unique_ptr<WorkerDoor>> WorkerDoor::open(const cli::Options& options, Parts parts) {
  auto state = std::make_unique<State>();
  state->parts = std::move(parts);
  state->model_name = folder_name(options.model);
  state->has_vllm_names = options.metrics_compat == "vllm";
  http::HttpServerOptions http;
  http.host = options.host;
  http.port = static_cast<uint16_t>(options.port);
  http.max_request_bytes = options.max_request_bytes;
  http.max_header_bytes = options.max_header_bytes;
  http.max_connections = options.max_connections;
  const auto handle = [held = state.get()](const http::Request& request,
                                           const std::shared_ptr<http::Exchange>& exchange) {
    exchange->respond(held->answer(request));
  };
  const auto error_body = [](int, std::string_view message) { return str_cat(message, "\n"); };
  TESSERA_TRY(state->http, http::HttpServer::start(http, handle, error_body));
  log_info("listening", "url", str_cat("http://", options.host, ":", state->http->port()));
  return std::unique_ptr<WorkerDoor>(new WorkerDoor(std::move(state)));
}

WorkerDoor::WorkerDoor(std::unique_ptr<State> state) : state_(std::move(state)) {}
WorkerDoor::~WorkerDoor() = default;

}  // namespace tessera
