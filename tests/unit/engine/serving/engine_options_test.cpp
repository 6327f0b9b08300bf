#include "engine/serving/engine_options.h"

#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/serving/engine_fixture.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

TEST(EngineOptionsTest, NamesTheOptionThatIsWrong) {
  const std::vector<std::pair<std::string, std::function<void(EngineOptions&)>>> cases = {
      {"vocab_size is 0", [](EngineOptions& options) { options.vocab_size = 0; }},
      {"max_model_len is 1", [](EngineOptions& options) { options.max_model_len = 1; }},
      {"num_blocks is 0", [](EngineOptions& options) { options.num_blocks = 0; }},
      {"max_num_seqs is 0", [](EngineOptions& options) { options.max_num_seqs = 0; }},
      {"max_num_batched_tokens is 7",
       [](EngineOptions& options) { options.max_num_batched_tokens = 7; }},
      {"max_queued_requests is 0", [](EngineOptions& options) { options.max_queued_requests = 0; }},
      {"eos_token_id is 50", [](EngineOptions& options) { options.eos_ids = {50}; }},
      {"ring_rows is 3, expected 4",
       [](EngineOptions& options) {
         options.ring = {.window = {.num_first = 0, .num_last = 4}, .ring_rows = 3};
       }},
  };
  EXPECT_TRUE(testing::small_options().validate().is_ok());
  for (const auto& [message, spoil] : cases) {
    EngineOptions options = testing::small_options();
    spoil(options);
    EXPECT_EQ(options.validate().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(options.validate().message(), HasSubstr(message));
  }
}

TEST(EngineOptionsTest, RefusesRequestsThatCannotRun) {
  const std::vector<std::pair<std::string, std::function<void(GenerationRequest&)>>> cases = {
      {"prompt is empty", [](GenerationRequest& request) { request.prompt_ids.clear(); }},
      {"512 tokens", [](GenerationRequest& request) { request.prompt_ids.assign(512, 1); }},
      {"token 50",
       [](GenerationRequest& request) {
         request.prompt_ids = {1, 50};
       }},
      {"token -1", [](GenerationRequest& request) { request.prompt_ids = {-1}; }},
      {"n is 9", [](GenerationRequest& request) { request.num_choices = 9; }},
      {"n is 0", [](GenerationRequest& request) { request.num_choices = 0; }},
      {"top_logprobs is 21",
       [](GenerationRequest& request) { request.sampling.num_top_logprobs = 21; }},
      {"max_tokens is 0", [](GenerationRequest& request) { request.sampling.max_tokens = 0; }},
  };
  const EngineOptions options = testing::small_options();
  EXPECT_TRUE(options.check_request(testing::make_request(10, 10)).is_ok());
  for (const auto& [message, spoil] : cases) {
    GenerationRequest request = testing::make_request(10, 10);
    spoil(request);
    EXPECT_EQ(options.check_request(request).code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(options.check_request(request).message(), HasSubstr(message));
  }
}

TEST(EngineOptionsTest, RefusesWhatNeverFitsIntoTheCache) {
  EngineOptions options = testing::small_options();
  options.num_blocks = 2;
  // Of 128 + 1 tokens the last is generated and never stored.
  EXPECT_TRUE(options.check_request(testing::make_request(100, 29)).is_ok());
  const Status status = options.check_request(testing::make_request(100, 30));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("needs 3 cache blocks"));
}

TEST(EngineOptionsTest, AReplayHasOneChoiceASeedAndTokensLeft) {
  GenerationRequest replay = testing::make_request(20, 10);
  replay.num_replayed_tokens = 5;
  const EngineOptions options = testing::small_options();
  EXPECT_TRUE(options.check_request(replay).is_ok());
  const std::vector<std::function<void(GenerationRequest&)>> faults = {
      [](GenerationRequest& request) { request.num_replayed_tokens = -1; },
      [](GenerationRequest& request) { request.num_replayed_tokens = 20; },
      [](GenerationRequest& request) { request.num_replayed_tokens = 10; },
      [](GenerationRequest& request) { request.num_choices = 2; },
      [](GenerationRequest& request) { request.sampling.temperature = 1.0F; },
      [](GenerationRequest& request) { request.first_choice = -1; },
  };
  for (size_t i = 0; i < faults.size(); ++i) {
    GenerationRequest bad = replay;
    faults[i](bad);
    EXPECT_EQ(options.check_request(bad).code(), StatusCode::kInvalidArgument) << "fault " << i;
  }
}

}  // namespace
}  // namespace tessera
