#include "server/openai/frontend_families.h"

namespace tessera::openai {
namespace {

struct Handler {
  const char* path;
  const char* method;
};
// In the order of RouteId.
constexpr std::array<Handler, kRouteNames.size()> kHandlers = {{{"/v1/chat/completions", "POST"},
                                                                {"/v1/completions", "POST"},
                                                                {"/v1/models", "GET"},
                                                                {"/tokenize", "POST"},
                                                                {"/detokenize", "POST"},
                                                                {"/health", "GET"},
                                                                {"/version", "GET"},
                                                                {"/metrics", "GET"},
                                                                {"/", "GET"},
                                                                {"/cluster", "GET"},
                                                                {"none", "GET"}}};

/// As servers behind prometheus-fastapi-instrumentator, vLLM among them, call them.
void add_instrumentator_names(metrics::FamilyList& list, const FrontendMetrics& frontend) {
  list.begin_counters("http_requests_total", "Answers by route and status");
  for (size_t route = 0; route < kHandlers.size(); ++route) {
    for (size_t status = 0; status < kStatusClassNames.size(); ++status) {
      list.add({{"handler", kHandlers[route].path},
                {"method", kHandlers[route].method},
                {"status", std::string(kStatusClassNames[status])}},
               static_cast<double>(frontend.responses[route][status].value()));
    }
  }
  list.begin_histograms("http_request_duration_seconds",
                        "From reading a request for tokens to the end of its answer");
  list.add({{"handler", "generation"}, {"method", "POST"}}, frontend.request_seconds);
}

}  // namespace

void add_frontend_families(metrics::FamilyList& list, const FrontendMetrics& frontend) {
  list.begin_counters("tessera_http_requests_total", "Answers by route and status");
  for (size_t route = 0; route < kRouteNames.size(); ++route) {
    for (size_t status = 0; status < kStatusClassNames.size(); ++status) {
      list.add({{"route", std::string(kRouteNames[route])},
                {"status", std::string(kStatusClassNames[status])}},
               static_cast<double>(frontend.responses[route][status].value()));
    }
  }
  list.gauge("tessera_http_open_connections",
             "Connections of clients, idle ones too",
             static_cast<double>(frontend.open_connections.value()));
  list.gauge("tessera_http_open_streams",
             "Event streams being sent",
             static_cast<double>(frontend.open_streams.value()));
  list.gauge("tessera_prompt_jobs",
             "Requests being parsed and tokenised, or waiting for it",
             static_cast<double>(frontend.prompt_jobs.value()));
  list.counter("tessera_prompt_jobs_rejected_total",
               "Refused: too many prompts in preparation",
               frontend.prompt_jobs_rejected);
  list.counter("tessera_http_client_disconnects_total",
               "Clients gone before their answer was complete",
               frontend.client_disconnects);
  list.counter("tessera_http_stream_errors_total",
               "Error events after the headers of a stream",
               frontend.stream_errors);
  list.counter("tessera_stop_strings_matched_total",
               "Choices ended by a stop string",
               frontend.stop_strings_matched);
  list.counter("tessera_request_unknown_fields_total",
               "Unknown request fields, ignored",
               frontend.unknown_fields);
  list.histogram("tessera_prompt_seconds", "Parse, render and tokenise", frontend.prompt_seconds);
  list.histogram("tessera_http_first_chunk_seconds",
                 "From reading a request to its first event",
                 frontend.first_chunk_seconds);
  list.histogram("tessera_http_request_seconds",
                 "From reading a request to the end of its answer",
                 frontend.request_seconds);
  if (list.has_vllm_names()) {
    add_instrumentator_names(list, frontend);
  }
}

}  // namespace tessera::openai
