// Looks at the server before the load: is it there, and which model does it serve.
#pragma once

#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "engine/base/result.h"
#include "server/bench/settings.h"

namespace tessera::bench {

struct HttpServer {
  boost::asio::ip::tcp::endpoint endpoint;  ///< the first address that takes a connection
  std::string model;                        ///< the first of /v1/models; empty where it has none
};

/// Connects and asks for /v1/models; seconds at most. Blocks. Errors: UNAVAILABLE (nobody there,
/// no answer), UNAUTHENTICATED, INVALID_ARGUMENT (what answers is no such server and the settings
/// name no model).
[[nodiscard]] Result<HttpServer> probe_http_blocking(const BenchSettings& settings);

}  // namespace tessera::bench
