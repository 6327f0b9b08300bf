// A sliced decode group with an exact window decodes a prompt that a prefill worker computed as one
// that it prefilled itself: the bundled model in float32, a random calibration with a window, both
// workers as they are composed for a server, over UCX.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/serving/decode_parts.h"
#include "engine/serving/engine.h"
#include "engine/serving/prefill_parts.h"
#include "engine/weights/tpla_calibration.h"
#include "tests/support/handoff_wire.h"
#include "tests/support/parity_reference.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tpla_bases.h"

namespace tessera::test {
namespace {

using ::tessera::testing::CollectingSink;
using ::tessera::testing::LocalDecodePort;
using ::tessera::testing::RoutingSink;

constexpr int64_t kNumTokens = 24;
constexpr int64_t kMaxModelLen = 448;
constexpr float kMaxLogprobError = 2e-3F;  // float32 sums in another order

/// One choice's tokens and their log-probabilities.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};

void expect_equal(const Answer& actual, const Answer& expected, const std::string& what) {
  EXPECT_EQ(actual.tokens, expected.tokens) << what;
  ASSERT_EQ(actual.logprobs.size(), expected.logprobs.size()) << what;
  for (size_t i = 0; i < actual.logprobs.size(); ++i) {
    EXPECT_NEAR(actual.logprobs[i], expected.logprobs[i], kMaxLogprobError) << what << ", " << i;
  }
}

std::vector<Answer> answers_of(CollectingSink& sink, int32_t num_choices) {
  bool is_done = false;
  for (int attempt = 0; attempt < 12 && !is_done; ++attempt) {  // sanitizers take their time
    is_done = sink.wait_until_done_blocking();
  }
  EXPECT_TRUE(is_done) << "no result in time";
  EXPECT_FALSE(sink.error().has_value()) << sink.error()->to_string();
  std::vector<Answer> answers(static_cast<size_t>(num_choices));
  for (size_t choice = 0; choice < answers.size(); ++choice) {
    for (const TokenEvent& event : sink.events(choice)) {
      answers[choice].tokens.push_back(event.token_id);
      answers[choice].logprobs.push_back(event.logprob);
    }
  }
  return answers;
}

std::unique_ptr<ModelParts> load(const WorkerConfig& worker, WorkerRole role) {
  auto parts = ModelParts::create(
      worker, ModelConfig::load(worker.model).value(), role, [](int64_t, int64_t) {});
  EXPECT_TRUE(parts.is_ok()) << parts.status().to_string();
  return std::move(parts).value();
}

/// A prefill worker and a decode group of two ranks with this window.
class Workers final {
 public:
  Workers(const WorkerConfig& common, const kernels::LatentWindow& window) {
    WorkerConfig worker = common;
    const ModelConfig config = ModelConfig::load(worker.model).value();
    TplaCalibration calibration =
        make_calibration(config, {.num_slices = 2, .shared_columns = {16, 0, 32, 16, 256, 0}});
    calibration.window = window;
    worker.tpla_calibration = folder_.file("calibration");
    const Status status = write_tpla_calibration(worker.tpla_calibration, config, calibration);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    worker.max_num_batched_tokens = kMaxModelLen + worker.max_num_seqs;
    worker.max_local_prefill_tokens = kMaxModelLen;
    decode_ = DecodeParts::create(worker, load(worker, WorkerRole::kDecode), {}).value();
    worker.max_num_batched_tokens = 100;  // chunks that end inside blocks
    prefill_ = PrefillParts::create(worker,
                                    load(worker, WorkerRole::kPrefill),
                                    {},
                                    [this](DecodePort::Listener& listener) {
                                      auto port = std::make_unique<LocalDecodePort>(listener);
                                      port->add_leader("leader", decode_->door());
                                      return port;
                                    })
                   .value();
  }

  /// Prefilled there, decoded here.
  [[nodiscard]] std::vector<Answer> hand_over(const GenerationRequest& generation) {
    auto client = std::make_shared<CollectingSink>(static_cast<size_t>(generation.num_choices));
    PrefillRequest request{
        .key = {RequestId::random(), 1}, .generation = generation, .decode_candidates = {"leader"}};
    request.generation.id = request.key.request;
    auto routing = std::make_shared<RoutingSink>(
        request, [this](const std::string&) { return &decode_->engine(); }, client);
    EXPECT_TRUE(prefill_->engine().prefill(std::move(request), routing).is_ok());
    return answers_of(*client, generation.num_choices);
  }
  /// Prefilled and decoded here.
  [[nodiscard]] std::vector<Answer> run_alone(GenerationRequest generation) {
    generation.id = RequestId::random();
    const int32_t num_choices = generation.num_choices;
    auto client = std::make_shared<CollectingSink>(static_cast<size_t>(num_choices));
    const HandoffKey key{generation.id, 1};
    EXPECT_TRUE(decode_->engine().generate(key, std::move(generation), client).is_ok());
    return answers_of(*client, num_choices);
  }
  [[nodiscard]] DecodeParts& decode() { return *decode_; }

 private:
  const TempFolder folder_;
  std::unique_ptr<DecodeParts> decode_;
  std::unique_ptr<PrefillParts> prefill_;  // last: ends first
};

class WindowHandoffTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto references = load_all_parity_references();
    ASSERT_TRUE(references.is_ok()) << references.status().to_string();
    for (const ParityReference& reference : references.value()) {
      if (reference.name == "demo_long500") {
        text_ = reference.input_ids;
      }
    }
    ASSERT_GE(text_.size(), 450U);
    common_.model = std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model";
    common_.dtype = "float32";
    common_.max_model_len = kMaxModelLen;
    common_.max_num_seqs = 4;
    common_.num_blocks = 40;
  }
  [[nodiscard]] GenerationRequest make_request(int64_t num_tokens) const {
    GenerationRequest request;
    request.prompt_ids = {text_.begin(), text_.begin() + num_tokens};
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = kNumTokens;
    request.sampling.ignore_eos = true;
    request.sampling.num_top_logprobs = 0;
    return request;
  }

  std::vector<int32_t> text_;
  WorkerConfig common_;
};

TEST_F(WindowHandoffTest, EqualsAGroupThatPrefilledItself) {
  Workers workers(common_, {.num_first = 3, .num_last = 20});
  // Ascending: what decode holds of one prompt is the beginning of the next.
  for (const int64_t num_tokens : {1, 2, 15, 63, 64, 65, 127, 128, 129, 300, 300}) {
    const GenerationRequest request = make_request(num_tokens);
    expect_equal(workers.hand_over(request)[0],
                 workers.run_alone(request)[0],
                 std::to_string(num_tokens) + " tokens");
  }
  const HandoffMetrics& metrics = workers.decode().engine().handoff_metrics();
  EXPECT_GT(metrics.prompt_tokens_held.value(), 0);
  EXPECT_EQ(metrics.terminal[0].value(), 11);
  EXPECT_EQ(metrics.probe_mismatches.value(), 0);
}

TEST_F(WindowHandoffTest, ChoicesGoOnEachWithItsOwnWindow) {
  Workers workers(common_, {.num_first = 0, .num_last = 7});
  for (const int64_t num_tokens : {64, 70}) {
    GenerationRequest request = make_request(num_tokens);
    request.num_choices = 3;
    request.sampling.temperature = 0.9F;
    request.sampling.seed = 17;
    const auto handed_over = workers.hand_over(request);
    const auto alone = workers.run_alone(request);
    for (size_t choice = 0; choice < 3; ++choice) {
      expect_equal(handed_over[choice], alone[choice], std::to_string(choice));
    }
    EXPECT_NE(handed_over[0].tokens, handed_over[1].tokens);
  }
}

TEST_F(WindowHandoffTest, AWindowLongerThanTheContextIsExact) {
  Workers workers(common_, {.num_first = 64, .num_last = kMaxModelLen});
  const auto whole = load(common_, WorkerRole::kCombined);
  const auto exact = Engine::create(make_engine_options(common_, *whole), whole->runner()).value();
  for (const int64_t num_tokens : {1, 65, 200, 230}) {
    GenerationRequest request = make_request(num_tokens);
    const auto handed_over = workers.hand_over(request);
    request.id = RequestId::random();
    auto sink = std::make_shared<CollectingSink>();
    ASSERT_TRUE(exact->submit(request, sink).is_ok());
    expect_equal(handed_over[0], answers_of(*sink, 1)[0], std::to_string(num_tokens) + " tokens");
  }
}

TEST_F(WindowHandoffTest, TheWindowIsWhatMakesTheDifference) {
  // Else the tests above would show nothing.
  Workers with(common_, {.num_first = 3, .num_last = 20});
  Workers without(common_, {});
  const GenerationRequest request = make_request(200);
  const Answer a = with.hand_over(request)[0];
  const Answer b = without.hand_over(request)[0];
  EXPECT_NEAR(a.logprobs[0], b.logprobs[0], kMaxLogprobError) << "prefill is exact";
  EXPECT_GT(std::abs(a.logprobs[1] - b.logprobs[1]), kMaxLogprobError);
}

}  // namespace
}  // namespace tessera::test
