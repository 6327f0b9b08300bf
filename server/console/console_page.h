// The console: one static page for people, embedded into the binary. It holds no secret and no
// data; its script asks /cluster and the API of the same server.
#pragma once

#include <string>
#include <string_view>

namespace tessera::console {

/// HTML, UTF-8.
[[nodiscard]] std::string_view page() noexcept;

/// The Content-Security-Policy under which `html` runs: its own inline script and style by their
/// hashes, requests to its own server, and nothing else.
[[nodiscard]] std::string content_security_policy(std::string_view html);

}  // namespace tessera::console
