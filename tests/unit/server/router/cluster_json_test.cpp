#include "server/router/cluster_json.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace tessera::router {
namespace {

using Json = nlohmann::json;

TEST(ClusterJsonTest, TellsOfTheFront) {
  RouterMetrics metrics;
  metrics.num_requests_in_flight.set(5);
  metrics.num_requests_waiting.set(2);
  metrics.generation_tokens.add(30);
  metrics.time_to_first_token_seconds.observe(0.25);
  metrics.time_to_first_token_seconds.observe(0.5);
  const Json json = Json::parse(cluster_json(front_status(metrics), {}));
  EXPECT_EQ(json["front"]["kind"], "router");
  EXPECT_EQ(json["front"]["requests_in_flight"], 5);
  EXPECT_EQ(json["front"]["requests_waiting"], 2);
  EXPECT_EQ(json["front"]["generated_tokens"], 30);
  EXPECT_EQ(json["front"]["first_token"]["count"], 2);
  EXPECT_EQ(json["front"]["first_token"]["seconds"], 0.75);
  EXPECT_EQ(json["workers"], Json::array());
}

TEST(ClusterJsonTest, TellsOfEachWorkerWhatItHasReported) {
  WorkerInfo info;
  info.attention = "tpla";
  info.num_ranks = 2;
  info.cache_bytes_per_token = 640;
  WorkerLoad load;
  load.num_blocks_total = 10;
  load.num_blocks_free = 4;
  load.handoff_us = 1500;
  const std::vector<WorkerStatus> workers = {{.role = "decode",
                                              .address = "h:1",
                                              .state = WorkerState::kReady,
                                              .info = info,
                                              .load = load,
                                              .num_open_calls = 3},
                                             {.role = "prefill",
                                              .address = "h:2",
                                              .state = WorkerState::kLost,
                                              .info = {},
                                              .load = {},
                                              .num_open_calls = 0}};
  const Json json = Json::parse(cluster_json(front_status(RouterMetrics()), workers));
  const Json& decode = json["workers"][0];
  EXPECT_EQ(decode["role"], "decode");
  EXPECT_EQ(decode["state"], "ready");
  EXPECT_EQ(decode["attention"], "tpla");
  EXPECT_EQ(decode["ranks"], 2);
  EXPECT_EQ(decode["blocks_used"], 6);
  EXPECT_EQ(decode["handoff_us"], 1500);
  EXPECT_EQ(decode["open_calls"], 3);
  const Json& lost = json["workers"][1];
  EXPECT_EQ(lost["state"], "lost");
  EXPECT_FALSE(lost.contains("attention"));
  EXPECT_FALSE(lost.contains("blocks_used"));
}

TEST(ClusterJsonTest, ReplacesWhatIsNotUtf8) {
  WorkerInfo info;
  info.attention = "\xff\"<script>";
  const std::string text = cluster_json(front_status(RouterMetrics()),
                                        {{.role = "decode",
                                          .address = "h",
                                          .state = WorkerState::kReady,
                                          .info = info,
                                          .load = {},
                                          .num_open_calls = 0}});
  EXPECT_EQ(Json::parse(text)["workers"][0]["attention"], "\xef\xbf\xbd\"<script>");
}

}  // namespace
}  // namespace tessera::router
