// What Prometheus' own clients tell of their process, read from /proc.
#pragma once

#include <optional>
#include <string_view>

#include "server/metrics/family_list.h"

namespace tessera::metrics {

/// Of /proc/PID/stat.
struct ProcessStat {
  double cpu_seconds = 0.0;
  double start_seconds = 0.0;  ///< since the machine started
  double virtual_bytes = 0.0;
  double resident_bytes = 0.0;
};

/// None when `line` is not one of /proc/PID/stat. The name in it may hold anything.
[[nodiscard]] std::optional<ProcessStat> parse_process_stat(std::string_view line);

/// The names that dashboards expect; without those that cannot be read here.
void add_process_families(FamilyList& list);

}  // namespace tessera::metrics
