// The routes of the HTTP API: what each takes, who may ask it, and on which listener.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "server/openai/frontend_metrics.h"

namespace tessera::openai {

enum class Audience : uint8_t {
  kClients,    ///< the public listener only
  kOperators,  ///< the operators' listener only, where there is one
  kBoth,       ///< probes and the page for people
};

struct Route {
  std::string_view path;
  std::string_view method;
  RouteId id;
  Audience audience = Audience::kClients;
  bool is_open = false;  ///< answers without a key
};

inline constexpr std::string_view kModelsPrefix = "/v1/models/";

[[nodiscard]] std::span<const Route> all_routes();
/// Null for a path that no route has. `kModelsPrefix` stands for every path that begins with it.
[[nodiscard]] const Route* find_route(std::string_view path);

}  // namespace tessera::openai
