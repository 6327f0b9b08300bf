// Random workloads: whatever the batching, chunking, preemption and caching, each request gets the
// tokens it would get alone.
#include <algorithm>
#include <iostream>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/serving/engine.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_step_runner.h"

namespace tessera {
namespace {

using testing::CollectingSink;
using testing::FakeStepRunner;

constexpr int32_t kVocabSize = 40;

class Random {
 public:
  explicit Random(uint64_t seed) : generator_(seed) {}
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(generator_);
  }
  bool one_in(int64_t n) { return between(1, n) == 1; }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
  }

 private:
  std::mt19937_64 generator_;
};

EngineOptions random_options(Random& random) {
  EngineOptions options;
  options.vocab_size = kVocabSize;
  options.max_model_len = random.between(130, 400);
  options.num_blocks = random.between(blocks_for_tokens(options.max_model_len), 24);
  options.max_num_seqs = random.between(3, 12);
  options.max_num_batched_tokens =
      options.max_num_seqs + random.pick<int64_t>({0, 1, 7, 63, 64, 65, 200});
  options.enable_prefix_caching = !random.one_in(3);
  options.eos_ids = {3};
  if (random.one_in(3)) {
    const int64_t num_last = random.between(0, 80);
    const int64_t num_first = random.between(num_last == 0 ? 1 : 0, 70);
    options.ring = {.window = {.num_first = num_first, .num_last = num_last},
                    .ring_rows = num_last};
  }
  return options;
}

SamplingParams random_sampling(Random& random) {
  SamplingParams sampling;
  sampling.temperature = random.one_in(2) ? 0.0F : 1.0F;
  sampling.seed = static_cast<uint64_t>(random.between(0, 1'000'000));
  sampling.max_tokens = random.pick<int64_t>({1, 2, 20, 64, 65, 130});
  sampling.ignore_eos = !random.one_in(3);
  sampling.min_tokens = random.one_in(4) ? std::min<int64_t>(sampling.max_tokens, 5) : 0;
  if (random.one_in(4)) {
    sampling.stop_token_ids = {11};
  }
  if (random.one_in(4)) {
    sampling.presence_penalty = 0.5F;
  }
  return sampling;
}

/// Prompts share prefixes of `story`, so that the prefix cache has something to find.
GenerationRequest random_request(Random& random,
                                 const std::vector<int32_t>& story,
                                 const EngineOptions& options) {
  GenerationRequest request;
  request.id = RequestId::random();
  const int64_t length =
      std::min(random.pick<int64_t>({1, 5, 63, 64, 65, 127, 128, 129, random.between(1, 300)}),
               options.max_model_len - 1);
  const int64_t num_shared = std::min(length, random.pick<int64_t>({0, 64, 100, 128, 300}));
  request.prompt_ids.assign(story.begin(), story.begin() + num_shared);
  const int64_t num_varied = random.one_in(2) ? std::min<int64_t>(length, 64) : length;
  while (static_cast<int64_t>(request.prompt_ids.size()) < num_varied) {
    request.prompt_ids.push_back(static_cast<int32_t>(random.between(0, kVocabSize - 1)));
  }
  request.prompt_ids.resize(static_cast<size_t>(length), 7);  // equal blocks, unequal prefixes
  request.sampling = random_sampling(random);
  request.num_choices =
      random.one_in(3) ? static_cast<int32_t>(random.between(2, options.max_num_seqs)) : 1;
  return request;
}

struct Live {
  GenerationRequest request;
  std::shared_ptr<CollectingSink> sink;
  bool is_cancelled = false;
};

void expect_reference_tokens(const Live& live, const EngineOptions& options) {
  const testing::FakeModelOptions model{kVocabSize, options.max_model_len, options.eos_ids};
  EXPECT_FALSE(live.sink->has_call_after_end());
  EXPECT_FALSE(live.sink->error().has_value());
  for (int32_t choice = 0; choice < live.request.num_choices; ++choice) {
    const auto expected = testing::fake_generate(live.request, choice, model);
    const auto events = live.sink->events(static_cast<size_t>(choice));
    const auto tokens = live.sink->tokens(static_cast<size_t>(choice));
    if (live.is_cancelled) {
      ASSERT_LE(tokens.size(), expected.tokens.size());
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.tokens.begin()));
      continue;
    }
    ASSERT_EQ(tokens, expected.tokens) << "choice " << choice;
    EXPECT_EQ(events.back().finish_reason, expected.reason);
  }
}

void expect_all_at_rest(const Engine& engine) {
  EXPECT_EQ(engine.metrics().num_blocks_used.value(), 0);
  EXPECT_EQ(engine.metrics().num_requests_running.value(), 0);
  EXPECT_EQ(engine.metrics().num_requests_waiting.value(), 0);
}

/// Runs one workload and returns its preemptions and cached tokens.
std::pair<int64_t, int64_t> run_workload(uint64_t seed, bool with_cancels) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  Random random(seed);
  const EngineOptions options = random_options(random);
  FakeStepRunner runner(options.num_blocks, kVocabSize, options.ring, options.max_num_seqs);
  auto engine = Engine::create(options, runner).value();
  std::vector<int32_t> story(300);
  std::generate(
      story.begin(), story.end(), [&] { return static_cast<int32_t>(random.between(0, 39)); });
  std::vector<Live> all;
  const int64_t num_requests = random.between(1, 25);
  for (int64_t i = 0; i < num_requests; ++i) {
    Live live;
    live.request = random_request(random, story, options);
    live.sink = std::make_shared<CollectingSink>(static_cast<size_t>(live.request.num_choices));
    EXPECT_TRUE(engine->submit(live.request, live.sink).is_ok());
    all.push_back(std::move(live));
    if (with_cancels && random.one_in(3)) {
      Live& victim = all[static_cast<size_t>(random.between(0, i))];
      victim.is_cancelled = true;
      engine->cancel(victim.request.id);
    } else if (random.one_in(5)) {
      EXPECT_TRUE(all.back().sink->wait_for_events_blocking(1));
    }
  }
  EXPECT_TRUE(engine->drain_blocking(Deadline::after(std::chrono::seconds(20))).is_ok());
  expect_all_at_rest(*engine);
  const std::pair result(engine->metrics().preemptions.value(),
                         engine->metrics().prompt_tokens_cached.value());
  engine.reset();
  EXPECT_TRUE(runner.faults().empty()) << runner.faults().front();
  EXPECT_LE(runner.max_tokens_seen, options.max_num_batched_tokens);
  EXPECT_LE(runner.max_rows_seen, options.max_num_seqs);
  for (const Live& live : all) {
    expect_reference_tokens(live, options);
  }
  return result;
}

TEST(EngineWorkloadTest, EveryRequestGetsTheTokensItWouldGetAlone) {
  const uint64_t first_seed = std::random_device{}();
  std::cout << "first seed " << first_seed << '\n';
  int64_t num_preemptions = 0;
  int64_t num_cached_tokens = 0;
  for (uint64_t seed = first_seed; seed < first_seed + 150 && !HasFailure(); ++seed) {
    const auto [preemptions, cached_tokens] = run_workload(seed, false);
    num_preemptions += preemptions;
    num_cached_tokens += cached_tokens;
  }
  EXPECT_GT(num_preemptions, 0);
  EXPECT_GT(num_cached_tokens, 0);
}

TEST(EngineWorkloadTest, CancelsAtRandomPointsLeaveNothingBehind) {
  const uint64_t first_seed = std::random_device{}();
  std::cout << "first seed " << first_seed << '\n';
  for (uint64_t seed = first_seed; seed < first_seed + 150 && !HasFailure(); ++seed) {
    run_workload(seed, true);
  }
}

}  // namespace
}  // namespace tessera
