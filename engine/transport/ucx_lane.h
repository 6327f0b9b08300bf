// Reads the names of the lanes out of what UCX prints about an endpoint (libraries before 1.14
// offer no other way).
#pragma once

#include <string>
#include <string_view>

namespace tessera {

/// "tcp/lo", or several joined by commas, from the text of ucp_ep_print_info(). Empty when there is
/// none.
[[nodiscard]] std::string parse_lanes(std::string_view printed);

/// Whether one of these lanes reads and writes GPU memory itself.
[[nodiscard]] bool has_device_lane(std::string_view lanes);

}  // namespace tessera
