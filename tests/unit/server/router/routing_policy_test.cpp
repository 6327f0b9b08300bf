#include "server/router/routing_policy.h"

#include <gtest/gtest.h>

namespace tessera::router {
namespace {

using Ids = std::vector<WorkerId>;

WorkerView prefill_view(WorkerId id, int64_t num_queued_tokens, int64_t num_matched_tokens = 0) {
  WorkerView view;
  view.id = id;
  view.layout_fingerprint = "a";
  view.load.num_queued_prompt_tokens = num_queued_tokens;
  view.num_matched_tokens = num_matched_tokens;
  return view;
}

WorkerView decode_view(WorkerId id, int64_t num_free, int64_t num_running) {
  WorkerView view;
  view.id = id;
  view.layout_fingerprint = "a";
  view.load.num_blocks_total = 100;
  view.load.num_blocks_free = num_free;
  view.load.num_requests_running = num_running;
  view.load.num_sequences_limit = 10;
  return view;
}

RouteQuery query_of(int64_t num_prompt_tokens, uint64_t rotation = 0) {
  RouteQuery query;
  query.num_prompt_tokens = num_prompt_tokens;
  query.rotation = rotation;
  return query;
}

constexpr auto kAffinity = PolicyKind::kPrefixAffinity;

TEST(RoutingPolicyTest, PrefillCostIsWhatComesBeforeTheFirstToken) {
  WorkerView view = prefill_view(1, 500, 64);
  view.num_placed_tokens = 300;
  EXPECT_EQ(prefill_cost(view, 200), 500 + 300 + 200 - 64);
}

TEST(RoutingPolicyTest, DecodeCostCountsBlocksSequencesAndTheBonus) {
  WorkerView view = decode_view(1, 25, 4);
  EXPECT_NEAR(decode_cost(view, 128), 0.75 + 0.4, 1e-12);
  view.num_matched_tokens = 64;  // half of the prompt
  EXPECT_NEAR(decode_cost(view, 128), 0.75 + 0.4 - 0.25, 1e-12);
  view.num_placed_tokens = 640;  // ten blocks
  view.num_placed_requests = 1;
  EXPECT_NEAR(decode_cost(view, 128), 0.85 + 0.5 - 0.25, 1e-12);
}

TEST(RoutingPolicyTest, RoomNeedsBlocksForThePromptAndOneTokenAndASequence) {
  EXPECT_TRUE(has_room(decode_view(1, 2, 0), 127));
  EXPECT_FALSE(has_room(decode_view(1, 2, 0), 128)) << "129 tokens are three blocks";
  EXPECT_TRUE(has_room(decode_view(1, 50, 9), 1));
  EXPECT_FALSE(has_room(decode_view(1, 50, 10), 1));
}

TEST(RoutingPolicyTest, PrefersTheHolderOfThePrefixUntilItsQueueCostsMore) {
  const std::vector<WorkerView> decode = {decode_view(9, 100, 0)};
  const std::vector<WorkerView> near = {prefill_view(1, 0), prefill_view(2, 600, 640)};
  EXPECT_EQ(choose_route(kAffinity, query_of(1000), near, decode).prefill, 2U);
  const std::vector<WorkerView> far = {prefill_view(1, 0), prefill_view(2, 700, 640)};
  EXPECT_EQ(choose_route(kAffinity, query_of(1000), far, decode).prefill, 1U);
}

TEST(RoutingPolicyTest, LeastLoadIgnoresThePrefix) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 599), prefill_view(2, 600, 640)};
  std::vector<WorkerView> decode = {decode_view(8, 90, 0), decode_view(9, 80, 0)};
  decode[1].num_matched_tokens = 999;
  const Route route = choose_route(PolicyKind::kLeastLoad, query_of(1000), prefill, decode);
  EXPECT_EQ(route.prefill, 1U);
  EXPECT_EQ(route.decode, (Ids{8, 9}));
}

TEST(RoutingPolicyTest, RoundRobinTakesTurns) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 9000), prefill_view(2, 0)};
  const std::vector<WorkerView> decode = {decode_view(8, 50, 5), decode_view(9, 100, 0)};
  for (uint64_t i = 0; i < 4; ++i) {
    const auto route = choose_route(PolicyKind::kRoundRobin, query_of(10, i), prefill, decode);
    EXPECT_EQ(route.prefill, 1 + i % 2);
    EXPECT_EQ(route.decode.front(), 8 + i % 2);
  }
}

TEST(RoutingPolicyTest, RotationSettlesTies) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 5), prefill_view(2, 5)};
  const std::vector<WorkerView> decode = {decode_view(9, 100, 0)};
  EXPECT_EQ(choose_route(kAffinity, query_of(10, 0), prefill, decode).prefill, 1U);
  EXPECT_EQ(choose_route(kAffinity, query_of(10, 1), prefill, decode).prefill, 2U);
}

TEST(RoutingPolicyTest, RanksDecodeByFillAndPutsFullOnesLast) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 0)};
  const std::vector<WorkerView> decode = {
      decode_view(6, 100, 10), decode_view(7, 40, 2), decode_view(8, 90, 1)};
  EXPECT_EQ(choose_route(kAffinity, query_of(10), prefill, decode).decode, (Ids{8, 7, 6}));
}

TEST(RoutingPolicyTest, OffersAtMostSoManyCandidates) {
  RouteQuery query = query_of(10);
  query.max_decode_candidates = 2;
  const std::vector<WorkerView> prefill = {prefill_view(1, 0)};
  const std::vector<WorkerView> decode = {
      decode_view(6, 70, 0), decode_view(7, 80, 0), decode_view(8, 90, 0)};
  EXPECT_EQ(choose_route(kAffinity, query, prefill, decode).decode, (Ids{8, 7}));
}

TEST(RoutingPolicyTest, PairsOnlyOneLayout) {
  std::vector<WorkerView> prefill = {prefill_view(1, 0), prefill_view(2, 900)};
  prefill[0].layout_fingerprint = "b";
  const std::vector<WorkerView> decode = {decode_view(9, 100, 0)};
  const Route route = choose_route(kAffinity, query_of(10), prefill, decode);
  EXPECT_EQ(route.prefill, 2U);
  prefill.pop_back();
  EXPECT_FALSE(choose_route(kAffinity, query_of(10), prefill, decode).is_found());
}

TEST(RoutingPolicyTest, AvoidsFailedWorkersWhileOthersExist) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 0), prefill_view(2, 900)};
  const std::vector<WorkerView> decode = {decode_view(8, 100, 0), decode_view(9, 20, 5)};
  const Ids avoid = {1, 8};
  RouteQuery query = query_of(10);
  query.avoid = avoid;
  Route route = choose_route(kAffinity, query, prefill, decode);
  EXPECT_EQ(route.prefill, 2U);
  EXPECT_EQ(route.decode, Ids{9});
  route = choose_route(kAffinity, query, std::span(prefill).first(1), std::span(decode).first(1));
  EXPECT_EQ(route.prefill, 1U);
  EXPECT_EQ(route.decode, Ids{8});
}

TEST(RoutingPolicyTest, ShortPromptsGoToAGroupThatTakesThem) {
  const std::vector<WorkerView> prefill = {prefill_view(1, 0)};
  std::vector<WorkerView> decode = {decode_view(8, 100, 0), decode_view(9, 50, 0)};
  decode[1].max_local_prefill_tokens = 32;
  RouteQuery query = query_of(32);
  query.local_prefill_max_tokens = 100;
  Route route = choose_route(kAffinity, query, prefill, decode);
  EXPECT_TRUE(route.is_local());
  EXPECT_EQ(route.decode, Ids{9});
  query.num_prompt_tokens = 33;
  EXPECT_EQ(choose_route(kAffinity, query, prefill, decode).prefill, 1U);
  query.num_prompt_tokens = 32;
  query.local_prefill_max_tokens = 31;
  EXPECT_EQ(choose_route(kAffinity, query, prefill, decode).prefill, 1U);
}

TEST(RoutingPolicyTest, FindsNothingAmongNobody) {
  EXPECT_FALSE(choose_route(kAffinity, query_of(10), {}, {}).is_found());
}

}  // namespace
}  // namespace tessera::router
