#include "engine/transport/ucx_lane.h"

#include <algorithm>
#include <array>

namespace tessera {
namespace {

/// From "  lane[0]:  1:tcp/lo.0 md[1]  -> ...": "tcp/lo".
std::string_view name_in(std::string_view line) {
  const size_t lane = line.find("lane[");
  const size_t colon = lane == std::string_view::npos ? lane : line.find(':', lane);
  const size_t second = colon == std::string_view::npos ? colon : line.find(':', colon + 1);
  if (second == std::string_view::npos) {
    return {};
  }
  line.remove_prefix(second + 1);
  line = line.substr(0, line.find(' '));
  const size_t dot = line.rfind('.');
  return line.substr(0, dot);
}

}  // namespace

std::string parse_lanes(std::string_view printed) {
  std::string lanes;
  while (!printed.empty()) {
    const size_t end = printed.find('\n');
    const std::string_view name = name_in(printed.substr(0, end));
    if (!name.empty()) {
      lanes.append(lanes.empty() ? "" : ",").append(name);
    }
    printed.remove_prefix(end == std::string_view::npos ? printed.size() : end + 1);
  }
  return lanes;
}

bool has_device_lane(std::string_view lanes) {
  constexpr std::array<std::string_view, 4> kTransports = {"cuda_ipc/", "rc_", "dc_", "gga_"};
  return std::any_of(kTransports.begin(), kTransports.end(), [lanes](std::string_view transport) {
    return lanes.starts_with(transport) || lanes.find("," + std::string(transport)) != lanes.npos;
  });
}

}  // namespace tessera
