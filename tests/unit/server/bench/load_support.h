// A load run from settings to its result, for tests.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "server/bench/load_run.h"

namespace tessera::bench::testing {

/// A closed loop of chat requests to `url`.
inline BenchSettings chat_settings(const std::string& url, int64_t num_requests) {
  BenchSettings settings;
  settings.target = parse_target(url).value();
  settings.api = Api::kChat;
  settings.arrivals.kind = ArrivalKind::kClosed;
  settings.max_concurrency = 4;
  settings.num_requests = num_requests;
  settings.data.input_tokens = 5;
  settings.data.output_tokens = 4;
  return settings;
}

/// Fails the test when the run does not end within a minute.
inline LoadResult run_blocking(const BenchSettings& settings) {
  auto run = LoadRun::create(settings);
  EXPECT_TRUE(run.is_ok()) << run.status().message();
  if (!run.is_ok()) {
    return {};
  }
  const Status started = run.value()->start();
  EXPECT_TRUE(started.is_ok()) << started.message();
  const Deadline end = Deadline::after(std::chrono::minutes(1));
  bool is_over = false;
  while (!is_over && !end.is_expired()) {
    is_over = run.value()->wait_blocking(Deadline::after(std::chrono::milliseconds(50)));
  }
  EXPECT_TRUE(is_over);
  return run.value()->take_result();
}

}  // namespace tessera::bench::testing
