#include "server/openai/openai_frontend.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "server/metrics/process_families.h"
#include "server/openai/authenticator.h"
#include "server/openai/frontend_families.h"
#include "server/openai/generation_session.h"
#include "server/openai/prompt_pool.h"
#include "server/openai/reply.h"
#include "server/openai/request_preparer.h"
#include "server/openai/route_table.h"
#include "server/openai/service_routes.h"

namespace tessera::openai {
namespace {

constexpr double kMaxTimeoutSeconds = 86'400.0;

bool is_json(const http::Request& request) {
  std::string type(request.header("Content-Type").value_or(""));
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') {
    type.pop_back();
  }
  std::transform(type.begin(), type.end(), type.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return type == "application/json";
}

/// Seconds in the header x-request-timeout, or none.
std::optional<double> parse_timeout(std::string_view text) {
  double seconds = 0.0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !(seconds > 0.0)) {
    return std::nullopt;
  }
  return seconds;
}

/// The sooner of the server's limit and the client's wish.
std::optional<ApiError> read_deadline(const http::Request& request,
                                      std::chrono::milliseconds server_timeout,
                                      Deadline& out) {
  double seconds =
      server_timeout.count() > 0 ? std::chrono::duration<double>(server_timeout).count() : 0.0;
  if (const auto text = request.header("x-request-timeout")) {
    const std::optional<double> asked = parse_timeout(*text);
    if (!asked.has_value()) {
      return bad_request("invalid_value",
                         "x-request-timeout",
                         "the header x-request-timeout is not a positive number of seconds");
    }
    const double bounded = std::min(*asked, kMaxTimeoutSeconds);
    seconds = seconds > 0.0 ? std::min(seconds, bounded) : bounded;
  }
  if (seconds > 0.0) {
    out = Deadline::after(std::chrono::duration_cast<Deadline::Clock::duration>(
        std::chrono::duration<double>(seconds)));
  }
  return std::nullopt;
}

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

class OpenAiFrontend::Impl final {
 public:
  Impl(OpenAiOptions options, const Parts& parts)
      : options_(std::move(options)),
        parts_(parts),
        authenticator_(options_.api_keys),
        preparer_(options_, parts.tokenizer, parts.chat_template),
        pool_(options_.num_prompt_threads,
              {options_.max_prompt_jobs, options_.max_prompt_job_bytes},
              metrics_) {}

  void replace_api_keys(const std::vector<std::string>& keys) { authenticator_.replace_keys(keys); }

  void handle(http::Request request, std::shared_ptr<http::Exchange> exchange) {
    const Route* route = find_route(request.path);
    const bool is_here = route != nullptr && is_offered(route->id) &&
                         (route->audience != Audience::kOperators || !options_.has_operator_port);
    const Reply reply = reply_to(request, std::move(exchange), is_here ? route : nullptr);
    if (!(is_here && route->is_open) && !authenticator_.allows(request)) {
      reply.fail(error_of_http(401, "Incorrect or missing API key."));
    } else {
      answer(is_here ? route : nullptr, std::move(request), reply);
    }
  }

  void handle_operator(http::Request request, std::shared_ptr<http::Exchange> exchange) {
    const Route* route = find_route(request.path);
    const bool is_here =
        route != nullptr && is_offered(route->id) && route->audience != Audience::kClients;
    const Reply reply = reply_to(request, std::move(exchange), is_here ? route : nullptr);
    answer(is_here ? route : nullptr, std::move(request), reply);
  }

  Gauge& open_connections() noexcept { return metrics_.open_connections; }

 private:
  [[nodiscard]] bool is_offered(RouteId id) const {
    return id == RouteId::kConsole   ? options_.has_console
           : id == RouteId::kCluster ? parts_.cluster_json != nullptr
                                     : true;
  }

  /// A null `route`: none that is offered here.
  [[nodiscard]] Reply reply_to(const http::Request& request,
                               std::shared_ptr<http::Exchange> exchange,
                               const Route* route) {
    const auto trace = TraceContext::parse_or_random(request.header("traceparent").value_or(""));
    return {std::move(exchange),
            route == nullptr ? RouteId::kOther : route->id,
            client_id_of(request),
            trace,
            metrics_};
  }

  void answer(const Route* route, http::Request request, const Reply& reply) {
    if (route == nullptr) {
      reply.fail(error_of_http(
          404, str_cat("Unknown request URL: ", request.method, " ", request.path.substr(0, 256))));
    } else if (!is_method_allowed(*route, request.method)) {
      refuse_method(*route, request, reply);
    } else if (route->method == "POST") {
      post(route->id, std::move(request), reply);
    } else {
      reply.respond(get(*route, request));
    }
  }

  static bool is_method_allowed(const Route& route, std::string_view method) {
    return method == route.method || (method == "HEAD" && route.method == "GET");
  }

  static void refuse_method(const Route& route, const http::Request& request, const Reply& reply) {
    http::Response response = error_response(error_of_http(
        405, str_cat(request.method.substr(0, 32), " is not allowed on ", route.path)));
    response.headers.emplace_back("Allow", route.method == "GET" ? "GET, HEAD" : "POST");
    reply.respond(std::move(response));
  }

  [[nodiscard]] std::string client_id_of(const http::Request& request) const {
    return sanitized_request_id(request.header("x-request-id").value_or(""),
                                options_.limits.max_request_id_bytes);
  }

  [[nodiscard]] http::Response get(const Route& route, const http::Request& request) const {
    if (route.path == "/livez") {
      return health_response(options_.liveness ? options_.liveness() : Status::ok());
    }
    switch (route.id) {
      case RouteId::kModels:
        return route.path == kModelsPrefix
                   ? model_response(options_, started_, request.path.substr(kModelsPrefix.size()))
                   : models_response(options_, started_);
      case RouteId::kVersion:
        return version_response(options_);
      case RouteId::kMetrics:
        return metrics_response();
      case RouteId::kConsole:
        return console_response();
      case RouteId::kCluster:
        return cluster_response();
      case RouteId::kHealth:
      case RouteId::kChat:
      case RouteId::kCompletion:
      case RouteId::kTokenize:
      case RouteId::kDetokenize:
      case RouteId::kOther:
        break;
    }
    return health_response(parts_.service.readiness());
  }

  [[nodiscard]] http::Response cluster_response() const {
    http::Response response;
    response.headers.emplace_back("Cache-Control", "no-store");
    response.body = parts_.cluster_json();
    return response;
  }

  [[nodiscard]] http::Response metrics_response() const {
    http::Response response;
    response.content_type = metrics::kContentType;
    metrics::FamilyList list(options_.served_model_names.front(), options_.has_vllm_metrics);
    parts_.add_service_families(list);
    add_frontend_families(list, metrics_);
    metrics::add_process_families(list);
    response.body = list.text();
    return response;
  }

  void post(RouteId id, http::Request request, const Reply& reply) {
    // Browsers send JSON to another site only after asking it; other types they send unasked.
    if (!is_json(request)) {
      reply.fail(error_of_http(415, "The Content-Type must be application/json."));
      return;
    }
    Deadline deadline;
    if (const auto error = read_deadline(request, options_.request_timeout, deadline)) {
      reply.fail(*error);
      return;
    }
    const auto num_bytes = static_cast<int64_t>(request.body.size());
    const bool is_queued =
        pool_.try_submit(num_bytes, [this, id, body = std::move(request.body), deadline, reply] {
          if (id == RouteId::kTokenize || id == RouteId::kDetokenize) {
            answer_tokens(id, body, reply);
          } else {
            prepare(id == RouteId::kChat ? Api::kChat : Api::kCompletion, body, deadline, reply);
          }
        });
    if (!is_queued) {
      reply.fail(error_of_status(resource_exhausted("too many prompts are being prepared")));
    }
  }

  /// Prompt threads.
  void answer_tokens(RouteId id, const std::string& body, const Reply& reply) {
    http::Response response;
    const std::optional<ApiError> error = id == RouteId::kTokenize
                                              ? preparer_.tokenize(body, response.body)
                                              : preparer_.detokenize(body, response.body);
    metrics_.prompt_seconds.observe(reply.seconds_since_start());
    if (error.has_value()) {
      reply.fail(*error);
      return;
    }
    reply.respond(std::move(response));
  }

  /// Prompt threads.
  void prepare(Api api, const std::string& body, Deadline deadline, const Reply& reply) {
    auto request = std::make_shared<PreparedRequest>();  // moved on by the task below
    const std::optional<ApiError> error = preparer_.prepare(api, body, deadline, *request);
    metrics_.prompt_seconds.observe(reply.seconds_since_start());
    count_unknown_fields(request->options, reply);
    if (error.has_value()) {
      reply.fail(*error);
      return;
    }
    for (GenerationRequest& prompt : request->prompts) {
      prompt.trace = reply.trace();
    }
    reply.exchange().post([this, request, reply] {
      Reply named = reply;
      named.adopt_request_id(request->options.request_id);
      const auto session = std::make_shared<GenerationSession>(
          parts_.service, parts_.tokenizer, std::move(*request), std::move(named));
      session->start();
    });
  }

  void count_unknown_fields(const GenerationOptions& options, const Reply& reply) {
    if (options.unknown_fields.empty()) {
      return;
    }
    metrics_.unknown_fields.add(static_cast<int64_t>(options.unknown_fields.size()));
    log_debug("unknown_fields",
              "request_id",
              reply.request_id(),
              "count",
              options.unknown_fields.size(),
              "first",
              options.unknown_fields.front().substr(0, 64));
  }

  const OpenAiOptions options_;
  const Parts parts_;
  const int64_t started_ = unix_time();
  FrontendMetrics metrics_;
  Authenticator authenticator_;
  const RequestPreparer preparer_;
  PromptPool pool_;  // last: joined before what its jobs use
};

Result<std::unique_ptr<OpenAiFrontend>> OpenAiFrontend::create(OpenAiOptions options,
                                                               const Parts& parts) {
  if (options.served_model_names.empty()) {
    return invalid_argument("served_model_names is empty, expected at least one name");
  }
  if (options.max_model_len < 1) {
    return invalid_argument(
        str_cat("max_model_len is ", options.max_model_len, ", expected at least 1"));
  }
  if (options.num_prompt_threads < 1) {
    return invalid_argument(
        str_cat("num_prompt_threads is ", options.num_prompt_threads, ", expected at least 1"));
  }
  return std::unique_ptr<OpenAiFrontend>(
      new OpenAiFrontend(std::make_unique<Impl>(std::move(options), parts)));
}

OpenAiFrontend::OpenAiFrontend(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OpenAiFrontend::~OpenAiFrontend() = default;

void OpenAiFrontend::handle(http::Request request, std::shared_ptr<http::Exchange> exchange) {
  impl_->handle(std::move(request), std::move(exchange));
}

void OpenAiFrontend::handle_operator(http::Request request,
                                     std::shared_ptr<http::Exchange> exchange) {
  impl_->handle_operator(std::move(request), std::move(exchange));
}

Gauge& OpenAiFrontend::open_connections() noexcept {
  return impl_->open_connections();
}

void OpenAiFrontend::replace_api_keys(const std::vector<std::string>& keys) {
  impl_->replace_api_keys(keys);
}

std::string http_error_body(int status, std::string_view message) {
  return error_json(error_of_http(status, message));
}

}  // namespace tessera::openai
