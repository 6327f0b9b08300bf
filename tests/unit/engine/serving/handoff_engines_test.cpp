// A prefill engine and a decode engine give the tokens of one engine, and hold nothing afterwards.

#include <gtest/gtest.h>

#include "tests/unit/engine/serving/handoff_fixture.h"

namespace tessera::testing {
namespace {

TEST(HandoffEnginesTest, GiveTheTokensOfOneEngine) {
  HandoffFixture pair;
  for (const int64_t num_prompt_tokens : {1, 5, 63, 64, 65, 128, 300}) {
    const auto request = make_request(num_prompt_tokens, 20);
    const auto running = pair.run_blocking(request);
    ASSERT_TRUE(pair.is_last_run_done) << num_prompt_tokens;
    EXPECT_EQ(running.client->tokens(), pair.expected_tokens(request)) << num_prompt_tokens;
    EXPECT_FALSE(running.client->has_call_after_end());
    EXPECT_TRUE(HandoffFixture::wait_for_blocking([&] { return running.routing->num_ends == 1; }));
    EXPECT_TRUE(running.routing->is_handed_over);
  }
  EXPECT_TRUE(pair.becomes_empty_blocking());
  EXPECT_TRUE(pair.decode_runner.faults().empty()) << pair.decode_runner.faults().front();
  EXPECT_TRUE(pair.prefill_runner.faults().empty()) << pair.prefill_runner.faults().front();
}

}  // namespace
}  // namespace tessera::testing
