#include "server/metrics/process_families.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace tessera::metrics {
namespace {

using ::testing::HasSubstr;

// Fields 3 to 24 of proc(5): 14 and 15 are ticks of the processor, 22 the start, 23 and 24 memory.
std::string stat_line(const std::string& name) {
  return "4711 (" + name +
         ") S 1 2 3 4 -1 4194304 5 6 7 8 150 50 9 10 20 0 12 0 400 123456789 1000 more 18446744";
}

TEST(ProcessFamiliesTest, ReadsTheFieldsBehindTheName) {
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  for (const char* name : {"tessera", "a b", "a) S 9 (b", ""}) {
    const auto stat = parse_process_stat(stat_line(name));
    ASSERT_TRUE(stat.has_value()) << name;
    EXPECT_DOUBLE_EQ(stat->cpu_seconds, 200 / ticks) << name;
    EXPECT_DOUBLE_EQ(stat->start_seconds, 400 / ticks) << name;
    EXPECT_DOUBLE_EQ(stat->virtual_bytes, 123456789) << name;
    EXPECT_DOUBLE_EQ(stat->resident_bytes, 1000 * page) << name;
  }
}

TEST(ProcessFamiliesTest, RefusesOtherText) {
  for (const char* text : {"", "4711 (tessera", "4711 (tessera) S 1 2 3", "4711 (x) S a b c"}) {
    EXPECT_FALSE(parse_process_stat(text).has_value()) << text;
  }
}

TEST(ProcessFamiliesTest, NamesWhatDashboardsExpect) {
  FamilyList list("m", /*has_vllm_names=*/false);
  add_process_families(list);
  const std::string text = list.text();
  for (const char* name : {"process_cpu_seconds_total",
                           "process_start_time_seconds",
                           "process_virtual_memory_bytes",
                           "process_resident_memory_bytes",
                           "process_open_fds",
                           "process_max_fds"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + name + "{")) << name;
  }
}

}  // namespace
}  // namespace tessera::metrics
