#include "server/metrics/vllm_families.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kLabels = R"({model_name="m",role="decode",engine="0")";

std::string engine_text(const EngineMetrics& engine, const HandoffMetrics* handoff) {
  FamilyList list("m", /*has_vllm_names=*/true);
  list.set_role("decode");
  add_vllm_engine_families(list, engine, handoff, 64);
  return list.text();
}

std::string sample(const std::string& name, const std::string& more, const std::string& value) {
  return "\n" + name + kLabels + more + "} " + value + "\n";
}

TEST(VllmFamiliesTest, AreLeftOutUnlessAskedFor) {
  FamilyList list("m", /*has_vllm_names=*/false);
  add_vllm_engine_families(list, EngineMetrics(), nullptr, 64);
  add_vllm_request_families(list, EngineMetrics());
  add_vllm_request_families(list, router::RouterMetrics());
  EXPECT_EQ(list.text(), "");
}

TEST(VllmFamiliesTest, CountPromptsThatAwaitTheirCacheAsWaiting) {
  EngineMetrics engine;
  engine.num_requests_running.set(4);
  engine.num_requests_waiting.set(2);
  HandoffMetrics handoff;
  handoff.reservations.set(3);
  const std::string text = engine_text(engine, &handoff);
  EXPECT_THAT(text, HasSubstr(sample("vllm:num_requests_running", "", "4")));
  EXPECT_THAT(text, HasSubstr(sample("vllm:num_requests_waiting", "", "5")));
  const std::string by_reason = "vllm:num_requests_waiting_by_reason";
  EXPECT_THAT(text, HasSubstr(sample(by_reason, R"(,reason="capacity")", "2")));
  EXPECT_THAT(text, HasSubstr(sample(by_reason, R"(,reason="deferred")", "3")));
}

TEST(VllmFamiliesTest, GiveCacheUseAsAShareAndItsShapeAsLabels) {
  EngineMetrics engine;
  engine.num_blocks_total.set(8);
  engine.num_blocks_used.set(2);
  const std::string text = engine_text(engine, nullptr);
  EXPECT_THAT(text, HasSubstr(sample("vllm:kv_cache_usage_perc", "", "0.25")));
  EXPECT_THAT(
      text,
      HasSubstr(sample("vllm:cache_config_info", R"(,block_size="64",num_gpu_blocks="8")", "1")));
}

TEST(VllmFamiliesTest, GiveTransfersOfWorkersOnly) {
  HandoffMetrics handoff;
  handoff.handoff_bytes.observe(5000.0);
  EXPECT_THAT(engine_text(EngineMetrics(), &handoff),
              HasSubstr(sample("vllm:nixl_bytes_transferred_sum", "", "5000")));
  EXPECT_THAT(engine_text(EngineMetrics(), nullptr), Not(HasSubstr("nixl")));
}

TEST(VllmFamiliesTest, TellRoutersEndsApart) {
  router::RouterMetrics router;
  router.requests_finished.add(5);
  router.requests_finished_length.add(2);
  router.requests_cancelled.add(7);
  router.requests_failed.add(1);
  FamilyList list("m", /*has_vllm_names=*/true);
  list.set_role("decode");
  add_vllm_request_families(list, router);
  const std::string text = list.text();
  const std::string name = "vllm:request_success_total";
  EXPECT_THAT(text, HasSubstr(sample(name, R"(,finished_reason="stop")", "3")));
  EXPECT_THAT(text, HasSubstr(sample(name, R"(,finished_reason="length")", "2")));
  EXPECT_THAT(text, HasSubstr(sample(name, R"(,finished_reason="abort")", "7")));
  EXPECT_THAT(text, HasSubstr(sample(name, R"(,finished_reason="error")", "1")));
}

TEST(VllmFamiliesTest, HaveBucketsOfTheirKind) {
  EngineMetrics engine;
  engine.shapes.prompt_tokens.observe(200);
  engine.time_to_first_token_seconds.observe(0.04);
  FamilyList list("m", /*has_vllm_names=*/true);
  list.set_role("decode");
  add_vllm_request_families(list, engine);
  const std::string text = list.text();
  EXPECT_THAT(text, HasSubstr(sample("vllm:request_prompt_tokens_bucket", R"(,le="100")", "0")));
  EXPECT_THAT(text, HasSubstr(sample("vllm:request_prompt_tokens_bucket", R"(,le="200")", "1")));
  EXPECT_THAT(text, HasSubstr(sample("vllm:request_prompt_tokens_bucket", R"(,le="+Inf")", "1")));
  EXPECT_THAT(text,
              HasSubstr(sample("vllm:time_to_first_token_seconds_bucket", R"(,le="0.05")", "1")));
}

}  // namespace
}  // namespace tessera::metrics
