#include "server/openai/service_routes.h"

#include <algorithm>
#include <utility>

#include "engine/base/text.h"
#include "server/console/console_page.h"
#include "server/openai/protocol/api_error.h"
#include "server/openai/protocol/json_text.h"

namespace tessera::openai {
namespace {

void append_card(std::string& out,
                 const OpenAiOptions& options,
                 int64_t created,
                 std::string_view name) {
  out += R"({"id":)";
  append_json_string(out, name);
  out += R"(,"object":"model","created":)";
  append_json_int(out, created);
  out += R"(,"owned_by":"tessera","root":)";
  append_json_string(out, options.model_root);
  out += R"(,"parent":null,"max_model_len":)";
  append_json_int(out, options.max_model_len);
  out += '}';
}

}  // namespace

http::Response models_response(const OpenAiOptions& options, int64_t created) {
  http::Response response;
  response.body = R"({"object":"list","data":[)";
  const char* separator = "";
  for (const std::string& name : options.served_model_names) {
    response.body += separator;
    append_card(response.body, options, created, name);
    separator = ",";
  }
  response.body += "]}";
  return response;
}

http::Response model_response(const OpenAiOptions& options,
                              int64_t created,
                              std::string_view name) {
  const auto& names = options.served_model_names;
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return error_response(model_not_found(name));
  }
  http::Response response;
  append_card(response.body, options, created, name);
  return response;
}

http::Response health_response(const Status& status) {
  if (!status.is_ok()) {
    return error_response(error_of_status(status));
  }
  http::Response response;
  response.body = R"({"status":"ok"})";
  return response;
}

http::Response console_response() {
  static const std::string policy = console::content_security_policy(console::page());
  http::Response response;
  response.content_type = "text/html; charset=utf-8";
  response.headers = {{"Content-Security-Policy", policy},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cache-Control", "no-cache"}};
  response.body = console::page();
  return response;
}

http::Response version_response(const OpenAiOptions& options) {
  http::Response response;
  response.body = R"({"version":)";
  append_json_string(response.body, options.version);
  response.body += '}';
  return response;
}

}  // namespace tessera::openai
