#include "server/roles/front_door.h"

#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "server/cli/key_file.h"
#include "server/cli/version.h"
#include "server/http/http_server.h"
#include "server/openai/openai_frontend.h"
#include "server/roles/public_rpc.h"
#include "server/roles/role_parts.h"

namespace tessera {
namespace {

// Of the operators' listener: it takes no bodies, and few ask there.
constexpr int64_t kMaxOperatorRequestBytes = 1024;
constexpr int64_t kMaxOperatorConnections = 64;
/// Shorter than that of clients: few connections, and probes among them.
constexpr std::chrono::seconds kOperatorIdleTimeout{15};

Result<std::vector<std::string>> read_api_keys(const cli::Options& options) {
  std::vector<std::string> keys = options.api_keys;
  if (!options.api_key_file.empty()) {
    TESSERA_TRY(const auto from_file, cli::read_key_file(options.api_key_file));
    keys.insert(keys.end(), from_file.begin(), from_file.end());
  }
  return keys;
}

Result<openai::OpenAiOptions> openai_options(const cli::Options& options,
                                             const FrontDoor::Parts& parts) {
  openai::OpenAiOptions openai;
  openai.served_model_names = options.served_model_names;
  if (openai.served_model_names.empty()) {
    openai.served_model_names.push_back(folder_name(options.model));
  }
  TESSERA_TRY(openai.api_keys, read_api_keys(options));
  openai.model_root = options.model;
  openai.version = cli::version_number();
  openai.max_model_len = parts.max_model_len;
  openai.vocab_size = parts.config.vocab_size;
  openai.limits.max_n = options.max_n;
  openai.limits.max_logprobs = options.max_logprobs;
  openai.defaults = parts.text.defaults;
  openai.request_timeout = std::chrono::seconds(options.request_timeout_s);
  openai.has_operator_port = options.metrics_port != 0;
  openai.has_console = options.console;
  openai.has_vllm_metrics = options.metrics_compat == "vllm";
  openai.liveness = parts.liveness;
  return openai;
}

http::HttpServerOptions http_options(const cli::Options& options, Gauge& open_connections) {
  http::HttpServerOptions http;
  http.host = options.host;
  http.port = static_cast<uint16_t>(options.port);
  http.max_request_bytes = options.max_request_bytes;
  http.max_header_bytes = options.max_header_bytes;
  http.max_connections = options.max_connections;
  http.open_connections = &open_connections;
  return http;
}

/// Null without --metrics-port.
Result<std::unique_ptr<http::HttpServer>> open_operator_port(const cli::Options& options,
                                                             openai::OpenAiFrontend& frontend) {
  if (options.metrics_port == 0) {
    return std::unique_ptr<http::HttpServer>();
  }
  http::HttpServerOptions http;
  http.host = options.metrics_host;
  http.port = static_cast<uint16_t>(options.metrics_port);
  http.max_request_bytes = kMaxOperatorRequestBytes;
  http.max_connections = kMaxOperatorConnections;
  http.idle_timeout = kOperatorIdleTimeout;
  const auto handle = [&frontend](http::Request request, std::shared_ptr<http::Exchange> exchange) {
    frontend.handle_operator(std::move(request), std::move(exchange));
  };
  TESSERA_TRY(auto server, http::HttpServer::start(http, handle, openai::http_error_body));
  log_info("metrics_listening",
           "url",
           str_cat("http://", options.metrics_host, ":", server->port(), "/metrics"));
  return server;
}

/// A clash of the server's own would only show when the model is loaded, as some other process's.
Status check_ports(const cli::Options& options) {
  const int64_t operators = options.metrics_port;
  if (operators == 0) {
    return Status::ok();
  }
  const bool is_of_http = operators == options.port;
  if (is_of_http || operators == options.rpc_port) {
    return invalid_argument(str_cat("--metrics-port ",
                                    operators,
                                    " is also ",
                                    is_of_http ? "--port" : "--rpc-port",
                                    ": operators' port is one of its own"));
  }
  return Status::ok();
}

}  // namespace

struct FrontDoor::State {
  cli::Options options;
  std::unique_ptr<openai::OpenAiFrontend> frontend;
  // After the front end, which their threads use.
  std::unique_ptr<http::HttpServer> http;
  std::unique_ptr<http::HttpServer> operator_http;
  std::unique_ptr<PublicRpc> rpc;
};

Status FrontDoor::check_options(const cli::Options& options) {
  TESSERA_RETURN_IF_ERROR(check_ports(options));
  return read_api_keys(options).status();
}

Result<std::unique_ptr<FrontDoor>> FrontDoor::open(const cli::Options& options, Parts parts) {
  TESSERA_RETURN_IF_ERROR(check_ports(options));
  auto state = std::make_unique<State>();
  state->options = options;
  TESSERA_TRY(auto openai, openai_options(options, parts));
  const ChatTemplate* chat_template =
      parts.text.chat_template.has_value() ? &*parts.text.chat_template : nullptr;
  TESSERA_TRY(state->rpc,
              PublicRpc::open(options,
                              openai,
                              {.service = parts.service,
                               .tokenizer = *parts.text.tokenizer,
                               .chat_template = chat_template}));
  const bool is_open = openai.api_keys.empty();
  const openai::OpenAiFrontend::Parts frontend_parts{
      .service = parts.service,
      .tokenizer = *parts.text.tokenizer,
      .add_service_families = std::move(parts.add_service_families),
      .chat_template = chat_template,
      .cluster_json = std::move(parts.cluster_json)};
  TESSERA_TRY(state->frontend, openai::OpenAiFrontend::create(std::move(openai), frontend_parts));
  const auto handle = [frontend = state->frontend.get()](http::Request request,
                                                         std::shared_ptr<http::Exchange> exchange) {
    frontend->handle(std::move(request), std::move(exchange));
  };
  TESSERA_TRY(state->operator_http, open_operator_port(options, *state->frontend));
  TESSERA_TRY(state->http,
              http::HttpServer::start(http_options(options, state->frontend->open_connections()),
                                      handle,
                                      openai::http_error_body));
  log_info("listening",
           "url",
           str_cat("http://", options.host, ":", state->http->port()),
           "api_keys",
           is_open ? "none: open to everybody who reaches the port" : "required");
  return std::unique_ptr<FrontDoor>(new FrontDoor(std::move(state)));
}

FrontDoor::FrontDoor(std::unique_ptr<State> state) : state_(std::move(state)) {}
FrontDoor::~FrontDoor() = default;

void FrontDoor::reload_keys() {
  const auto keys = read_api_keys(state_->options);
  if (!keys.is_ok()) {
    log_error("api_keys_kept", "reason", keys.status().message());
    return;
  }
  state_->frontend->replace_api_keys(keys.value());
  state_->rpc->replace_keys(keys.value());
  log_info("api_keys_reloaded", "keys", keys.value().size());
}

void FrontDoor::set_draining() {
  state_->http->announce_drain();
  state_->rpc->set_draining();
}

bool FrontDoor::drain_blocking(Deadline deadline) {
  const bool have_all_ended = state_->http->drain_blocking(deadline);
  state_->rpc->close_blocking(deadline);
  return have_all_ended;
}

}  // namespace tessera
