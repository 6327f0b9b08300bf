// What this binary is made of.
#pragma once

#include <string>
#include <string_view>

namespace tessera::cli {

/// "0.1.0".
[[nodiscard]] std::string version_number();
/// Version, commit, compiler, libraries and backends, one a line. UCX's is that of the library in
/// use.
[[nodiscard]] std::string describe_version(std::string_view ucx_version);

}  // namespace tessera::cli
