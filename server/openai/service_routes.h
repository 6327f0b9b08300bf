// The answers that need no engine work: models, health, version. Pure functions of their arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "server/http/exchange.h"
#include "server/openai/options.h"

namespace tessera::openai {

/// {"object":"list","data":[card…]} with one card per served name.
[[nodiscard]] http::Response models_response(const OpenAiOptions& options, int64_t created);
/// One card, or 404 model_not_found.
[[nodiscard]] http::Response model_response(const OpenAiOptions& options,
                                            int64_t created,
                                            std::string_view name);
/// 200 {"status":"ok"}, or 503 with the reason.
[[nodiscard]] http::Response health_response(const Status& status);
[[nodiscard]] http::Response version_response(const OpenAiOptions& options);
/// The page for people, which may load nothing from elsewhere.
[[nodiscard]] http::Response console_response();

}  // namespace tessera::openai
