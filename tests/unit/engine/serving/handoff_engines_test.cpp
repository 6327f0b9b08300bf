// A prefill engine and a decode engine give the tokens of one engine, and hold nothing afterwards.

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/engine/serving/handoff_fixture.h"

namespace tessera::testing {
namespace {

void expect_no_faults(const HandoffFixture& pair) {
  EXPECT_TRUE(pair.decode_runner.faults().empty()) << pair.decode_runner.faults().front();
  EXPECT_TRUE(pair.prefill_runner.faults().empty()) << pair.prefill_runner.faults().front();
}

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
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, ChoicesAndPenaltiesGoOnAtDecode) {
  HandoffFixture pair;
  auto request = make_request(70, 12);
  request.num_choices = 3;
  request.sampling.temperature = 1.0F;
  request.sampling.seed = 9;
  request.sampling.presence_penalty = 0.5F;
  const auto running = pair.run_blocking(request);
  ASSERT_TRUE(pair.is_last_run_done);
  for (int32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(running.client->tokens(static_cast<size_t>(choice)),
              pair.expected_tokens(request, choice));
    const auto events = running.client->events(static_cast<size_t>(choice));
    for (size_t i = 0; i < events.size(); ++i) {
      EXPECT_EQ(events[i].index, static_cast<int64_t>(i));
    }
  }
  EXPECT_TRUE(pair.becomes_empty_blocking());
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, OneTokenNeverReachesDecode) {
  HandoffFixture pair;
  const auto request = make_request(70, 1);
  const auto running = pair.run_blocking(request);
  ASSERT_TRUE(pair.is_last_run_done);
  EXPECT_EQ(running.client->tokens(), pair.expected_tokens(request));
  EXPECT_EQ(running.routing->num_reserved, 0);
  EXPECT_TRUE(pair.becomes_empty_blocking());
  EXPECT_EQ(pair.port.last_link(), 0U);
}

TEST(HandoffEnginesTest, APreemptedRequestEndsAndSaysSo) {
  HandoffFixture::Setup setup;
  setup.decode.num_blocks = 8;
  HandoffFixture pair(setup);
  auto running =
      std::vector{pair.submit(make_request(120, 300)), pair.submit(make_request(100, 300))};
  int num_preempted = 0;
  for (auto& request : running) {
    ASSERT_TRUE(request.client->wait_until_done_blocking());
    if (const auto error = request.client->error()) {
      EXPECT_EQ(error->code(), StatusCode::kResourceExhausted);
      EXPECT_NE(error->message().find("preempted"), std::string::npos) << error->message();
      ++num_preempted;
    }
  }
  EXPECT_EQ(num_preempted, 1) << "8 blocks hold one of them";
  EXPECT_TRUE(pair.becomes_empty_blocking());
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, AShortPromptIsPrefilledWhereItIsDecoded) {
  HandoffFixture::Setup setup;
  setup.max_local_prefill_tokens = 100;
  setup.publishes_own_blocks = false;
  HandoffFixture pair(setup);
  const auto request = make_request(100, 20);
  for (int i = 0; i < 2; ++i) {
    auto client = std::make_shared<CollectingSink>();
    ASSERT_TRUE(pair.decode->generate({request.id, 1}, request, client).is_ok());
    ASSERT_TRUE(client->wait_until_done_blocking());
    EXPECT_EQ(client->tokens(), pair.expected_tokens(request));
    EXPECT_EQ(client->events().front().num_cached_tokens, 0) << "nothing was published";
    ASSERT_TRUE(pair.becomes_empty_blocking());
  }
  const auto longer = make_request(101, 20);
  EXPECT_EQ(
      pair.decode->generate({longer.id, 1}, longer, std::make_shared<CollectingSink>()).code(),
      StatusCode::kInvalidArgument);
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, DrainLetsWhatIsLiveEnd) {
  HandoffFixture pair;
  pair.decode_gate.close();
  const auto request = make_request(70, 20);
  const auto running = pair.submit(request);
  ASSERT_TRUE(HandoffFixture::wait_for_blocking([&] { return running.routing->num_ends == 1; }));
  EXPECT_TRUE(pair.prefill->drain_blocking(Deadline::after(std::chrono::seconds(10))).is_ok());
  EXPECT_EQ(pair.submit(make_request(10, 5)).status.code(), StatusCode::kUnavailable);
  pair.decode->begin_drain();
  EXPECT_TRUE(pair.decode->load().is_draining);
  pair.decode_gate.open();
  EXPECT_TRUE(pair.decode->drain_blocking(Deadline::after(std::chrono::seconds(10))).is_ok());
  EXPECT_TRUE(running.client->wait_until_done_blocking());
  EXPECT_EQ(running.client->tokens(), pair.expected_tokens(request));
}

TEST(HandoffEnginesTest, TheEndOfDecodeEndsWhatWaitsForIt) {
  HandoffFixture pair;
  pair.sender.hold(true);
  const auto running = pair.submit(make_request(70, 20));
  ASSERT_TRUE(HandoffFixture::wait_for_blocking([&] { return pair.sender.num_held() == 2; }));
  pair.port.remove_leader(HandoffFixture::kLeader);
  pair.decode.reset();
  ASSERT_TRUE(running.client->wait_until_done_blocking());
  EXPECT_EQ(running.client->error()->code(), StatusCode::kUnavailable);
  EXPECT_TRUE(HandoffFixture::wait_for_blocking([&] { return running.routing->num_ends == 1; }));
  EXPECT_TRUE(HandoffFixture::wait_for_blocking(
      [&] { return pair.prefill->metrics().num_blocks_used.value() == 0; }));
}

TEST(HandoffEnginesTest, LoadCountsWhatIsReserved) {
  HandoffFixture pair;
  pair.sender.hold(true);
  const auto running = pair.submit(make_request(70, 20));
  EXPECT_TRUE(HandoffFixture::wait_for_blocking([&] {
    const WorkerLoad load = pair.decode->load();
    return load.num_blocks_free == load.num_blocks_total - 2;
  }));
  pair.cancel(running.key);
  EXPECT_TRUE(pair.becomes_empty_blocking());
}

/// Three images a block, the first 3 and the last 70 tokens whole.
HandoffFixture::Setup window_setup() {
  HandoffFixture::Setup setup;
  setup.publishes_own_blocks = false;
  setup.num_images = 3;
  setup.decode.ring = {.window = {.num_first = 3, .num_last = 70}, .ring_rows = 70};
  return setup;
}

TEST(HandoffEnginesTest, TheWindowOfAPromptIsFilledWhenItIsTakenOver) {
  HandoffFixture pair(window_setup());
  for (const int64_t num_prompt_tokens : {1, 3, 63, 64, 65, 128, 300, 300}) {  // twice: held blocks
    const auto request = make_request(num_prompt_tokens, 90);
    const auto running = pair.run_blocking(request);
    ASSERT_TRUE(pair.is_last_run_done) << num_prompt_tokens;
    EXPECT_EQ(running.client->tokens(), pair.expected_tokens(request)) << num_prompt_tokens;
  }
  EXPECT_TRUE(pair.becomes_empty_blocking());
  EXPECT_EQ(pair.decode_runner.num_window_fills, 8);
  EXPECT_GT(pair.decode->handoff_metrics().prompt_tokens_held.value(), 0);
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, EachChoiceHasAWindowOfItsOwn) {
  HandoffFixture pair(window_setup());
  auto request = make_request(70, 100);
  request.num_choices = 3;
  request.sampling.temperature = 1.0F;
  request.sampling.seed = 9;
  const auto running = pair.run_blocking(request);
  ASSERT_TRUE(pair.is_last_run_done);
  for (int32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(running.client->tokens(static_cast<size_t>(choice)),
              pair.expected_tokens(request, choice));
  }
  EXPECT_TRUE(pair.becomes_empty_blocking());
  EXPECT_EQ(pair.decode_runner.num_window_fills, 1);
  EXPECT_EQ(pair.decode_runner.num_window_copies, 2);
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, APromptThatIsPrefilledWhereItIsDecodedWritesItsWindow) {
  HandoffFixture::Setup setup = window_setup();
  setup.max_local_prefill_tokens = 100;
  HandoffFixture pair(setup);
  const auto request = make_request(100, 90);
  auto client = std::make_shared<CollectingSink>();
  ASSERT_TRUE(pair.decode->generate({request.id, 1}, request, client).is_ok());
  ASSERT_TRUE(client->wait_until_done_blocking());
  EXPECT_EQ(client->tokens(), pair.expected_tokens(request));
  EXPECT_TRUE(pair.becomes_empty_blocking());
  EXPECT_EQ(pair.decode_runner.num_window_fills, 0);
  expect_no_faults(pair);
}

void cancel_and_break_at_random(HandoffFixture::Setup setup) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::minstd_rand random(seed);
  setup.decode.num_blocks = 24;
  setup.prefill.num_blocks = 24;
  HandoffFixture pair(setup);
  for (int round = 0; round < 40; ++round) {
    std::vector<GenerationRequest> requests;
    std::vector<HandoffFixture::Running> all;
    for (int i = 0; i < 6; ++i) {
      requests.push_back(make_request(1 + random() % 200, 2 + random() % 30));
      requests.back().num_choices = 1 + static_cast<int32_t>(random() % 2);
      all.push_back(pair.submit(requests.back()));
      ASSERT_TRUE(all.back().status.is_ok());
    }
    std::vector<bool> is_cancelled(all.size(), false);
    if (random() % 2 == 0) {
      const size_t victim = random() % all.size();
      pair.cancel(all[victim].key);
      is_cancelled[victim] = true;
    }
    if (random() % 3 == 0) {
      pair.port.break_link(pair.port.last_link());
    } else if (random() % 3 == 0) {
      pair.sender.fail_peer(pair.sender.last_peer());
    }
    for (size_t i = 0; i < all.size(); ++i) {
      if (is_cancelled[i]) {
        continue;
      }
      ASSERT_TRUE(all[i].client->wait_until_done_blocking()) << "round " << round;
      EXPECT_FALSE(all[i].client->has_call_after_end());
      if (const auto error = all[i].client->error()) {
        EXPECT_EQ(error->code(), StatusCode::kUnavailable) << error->to_string();
        continue;
      }
      for (int32_t choice = 0; choice < requests[i].num_choices; ++choice) {
        EXPECT_EQ(all[i].client->tokens(static_cast<size_t>(choice)),
                  pair.expected_tokens(requests[i], choice));
      }
    }
    ASSERT_TRUE(pair.becomes_empty_blocking()) << "round " << round;
  }
  expect_no_faults(pair);
}

TEST(HandoffEnginesTest, RandomCancelsAndBrokenLinksLeakNothing) {
  cancel_and_break_at_random({});
}

TEST(HandoffEnginesTest, RandomCancelsAndBrokenLinksLeakNothingWithAWindow) {
  cancel_and_break_at_random(window_setup());
}

}  // namespace
}  // namespace tessera::testing
