#include "server/metrics/process_families.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

namespace tessera::metrics {
namespace {

// Fields of /proc/PID/stat behind the name, counted from 0 (proc(5) counts from 1, with pid and
// name).
constexpr size_t kUserTicks = 11;
constexpr size_t kSystemTicks = 12;
constexpr size_t kStartTicks = 19;
constexpr size_t kVirtualBytes = 20;
constexpr size_t kResidentPages = 21;
constexpr size_t kNumFields = 22;

std::string read_file(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// When the machine started, in Unix time; 0: unknown.
double boot_seconds() {
  std::istringstream lines(read_file("/proc/stat"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("btime ", 0) == 0) {
      return std::strtod(line.c_str() + 6, nullptr);
    }
  }
  return 0.0;
}

int64_t num_open_files() {
  std::error_code error;
  const std::filesystem::directory_iterator entries("/proc/self/fd", error);
  return error ? 0 : std::distance(begin(entries), end(entries)) - 1;  // less the one that looks
}

void add_files(FamilyList& list) {
  list.gauge("process_open_fds", "Open file descriptors", static_cast<double>(num_open_files()));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    list.gauge("process_max_fds", "Most file descriptors", static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace

std::optional<ProcessStat> parse_process_stat(std::string_view line) {
  const size_t name_end = line.rfind(')');
  if (name_end == std::string_view::npos) {
    return std::nullopt;
  }
  std::istringstream fields{std::string(line.substr(name_end + 1))};
  std::string state;
  std::array<double, kNumFields> values{};
  fields >> state;
  for (size_t i = 1; i < kNumFields; ++i) {
    fields >> values[i];
  }
  if (fields.fail()) {
    return std::nullopt;
  }
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  return ProcessStat{.cpu_seconds = (values[kUserTicks] + values[kSystemTicks]) / ticks,
                     .start_seconds = values[kStartTicks] / ticks,
                     .virtual_bytes = values[kVirtualBytes],
                     .resident_bytes = values[kResidentPages] * page_bytes};
}

void add_process_families(FamilyList& list) {
  const auto stat = parse_process_stat(read_file("/proc/self/stat"));
  if (!stat.has_value()) {
    return;
  }
  list.begin_counters("process_cpu_seconds_total", "Processor time, user and system");
  list.add({}, stat->cpu_seconds);
  list.gauge("process_start_time_seconds",
             "Start of the process in Unix time",
             boot_seconds() + stat->start_seconds);
  list.gauge("process_virtual_memory_bytes", "Virtual memory", stat->virtual_bytes);
  list.gauge("process_resident_memory_bytes", "Resident memory", stat->resident_bytes);
  add_files(list);
}

}  // namespace tessera::metrics
