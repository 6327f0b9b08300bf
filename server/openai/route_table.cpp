#include "server/openai/route_table.h"

#include <algorithm>
#include <array>

namespace tessera::openai {
namespace {

constexpr std::array<Route, 14> kRoutes = {{
    {"/v1/chat/completions", "POST", RouteId::kChat},
    {"/v1/completions", "POST", RouteId::kCompletion},
    {"/v1/models", "GET", RouteId::kModels},
    {"/tokenize", "POST", RouteId::kTokenize},
    {"/detokenize", "POST", RouteId::kDetokenize},
    {"/health", "GET", RouteId::kHealth, Audience::kBoth, true},
    {"/livez", "GET", RouteId::kHealth, Audience::kBoth, true},
    {"/readyz", "GET", RouteId::kHealth, Audience::kBoth, true},
    {"/ping", "GET", RouteId::kHealth},
    {"/version", "GET", RouteId::kVersion},
    {"/metrics", "GET", RouteId::kMetrics, Audience::kOperators},
    {"/", "GET", RouteId::kConsole, Audience::kBoth, true},
    {"/cluster", "GET", RouteId::kCluster, Audience::kOperators},
    {kModelsPrefix, "GET", RouteId::kModels},
}};

}  // namespace

std::span<const Route> all_routes() {
  return kRoutes;
}

const Route* find_route(std::string_view path) {
  const auto matches = [path](const Route& route) {
    if (route.path == kModelsPrefix) {
      return path.starts_with(kModelsPrefix) && path.size() > kModelsPrefix.size();
    }
    return route.path == path;
  };
  const auto* found = std::find_if(kRoutes.begin(), kRoutes.end(), matches);
  return found == kRoutes.end() ? nullptr : found;
}

}  // namespace tessera::openai
