#include "server/router/router_loop.h"

#include <gtest/gtest.h>

#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

using ::testing::Test;
using Ids = std::vector<int32_t>;

TEST_F(RouterLoopTest, SendsARequestThroughPrefillAndDecode) {
  start(1, 1);
  const RequestId id = begin();
  FakeCall& prefill = worker("p0").last();
  EXPECT_EQ(prefill.key.request, id);
  EXPECT_EQ(prefill.generation.id, id);
  EXPECT_EQ(prefill.candidates, std::vector<std::string>{"d0"});
  reserve(prefill, "d0");
  FakeCall& decode = worker("d0").last();
  EXPECT_EQ(decode.key, prefill.key);
  say(prefill, token(0, 10));
  EXPECT_EQ(client->tokens[0], Ids{10}) << "the first token does not wait for decode";
  hand_over(prefill);
  say(decode, token(1, 11));
  say(decode, token(2, 12, true));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11, 12}));
  EXPECT_TRUE(client->is_finished());
  EXPECT_EQ(prefill.num_cancels + decode.num_cancels, 0) << "both ended by themselves";
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelReachesBothLegsOnce) {
  start(1, 1);
  const RequestId id = begin();
  reserve(worker("p0").last(), "d0");
  cancel(id);
  cancel(id);
  EXPECT_EQ(worker("p0").last().num_cancels, 1);
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  EXPECT_FALSE(client->is_over()) << "the caller knows that it cancelled";
  expect_all_over();
}

TEST_F(RouterLoopTest, IgnoresEventsAfterTheCancel) {
  start(1, 1);
  const RequestId id = begin();
  cancel(id);
  say(worker("p0").last(), token(0, 10));
  EXPECT_TRUE(client->tokens[0].empty());
  expect_all_over();
}

}  // namespace
}  // namespace tessera::router
