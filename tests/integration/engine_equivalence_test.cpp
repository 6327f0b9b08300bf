// However the engine schedules a request (alone, batched, in chunks, preempted, from the prefix
// cache, on one thread or three), its greedy tokens in float32 are the same.

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/cache/paged_latent_cache.h"
#include "engine/runner/model_runner.h"
#include "engine/serving/engine.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/parity_reference.h"
#include "tests/support/tested_backend.h"

namespace tessera::test {
namespace {

namespace testing = ::tessera::testing;
using testing::CollectingSink;

constexpr int64_t kMaxModelLen = 640;
constexpr int64_t kNumTokens = 20;

/// The bundled model with everything an Engine needs.
class EngineOnDemoModel final {
 public:
  struct Setup {
    int64_t max_num_batched_tokens = 1024;
    int64_t num_blocks = 200;
    bool enable_prefix_caching = false;
    int num_threads = 2;
  };

  [[nodiscard]] static Result<std::unique_ptr<EngineOnDemoModel>> create(const Setup& setup) {
    std::unique_ptr<EngineOnDemoModel> self(new EngineOnDemoModel());
    const std::string folder = std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model";
    TESSERA_TRY(self->config_, ModelConfig::load(folder));
    TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(folder));
    self->backend_ = testing::make_tested_backend(setup.num_threads);
    TESSERA_TRY(self->weights_, load_model_weights(self->config_, checkpoint, *self->backend_, {}));
    const auto num_layers = static_cast<size_t>(self->config_.num_hidden_layers);
    const LatentLayout layout{
        .latent_widths = std::vector<int64_t>(num_layers, self->config_.kv_lora_rank),
        .rope_width = self->config_.qk_rope_head_dim,
        .dtype = kernels::DType::kFloat32};
    TESSERA_TRY(PagedLatentCache cache,
                PagedLatentCache::create(
                    self->backend_->device(), LatentShard::full(layout), setup.num_blocks));
    self->cache_ = std::make_unique<PagedLatentCache>(std::move(cache));
    EngineOptions options;
    options.vocab_size = self->config_.vocab_size;
    options.max_model_len = kMaxModelLen;
    options.num_blocks = setup.num_blocks;
    options.max_num_seqs = 16;
    options.max_num_batched_tokens = setup.max_num_batched_tokens;
    options.enable_prefix_caching = setup.enable_prefix_caching;
    options.cache_fingerprint = "demo float32";
    const StepLimits limits{.max_tokens = options.max_num_batched_tokens,
                            .max_sequences = options.max_num_seqs,
                            .max_logits_rows = options.max_num_seqs,
                            .max_model_len = kMaxModelLen};
    self->runner_ = std::make_unique<ModelRunner>(
        self->config_, self->weights_, limits, *self->cache_, *self->backend_);
    TESSERA_TRY(self->engine_, Engine::create(options, *self->runner_));
    return self;
  }

  /// Submits all prompts at once and returns each one's tokens, all choices joined.
  [[nodiscard]] std::vector<std::vector<int32_t>> generate(
      const std::vector<std::vector<int32_t>>& prompts, int32_t num_choices = 1) {
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const auto& prompt : prompts) {
      GenerationRequest request;
      request.id = RequestId::random();
      request.prompt_ids = prompt;
      request.num_choices = num_choices;
      request.sampling.temperature = 0.0F;
      request.sampling.max_tokens = kNumTokens;
      request.sampling.ignore_eos = true;
      sinks.push_back(std::make_shared<CollectingSink>(static_cast<size_t>(num_choices)));
      const Status status = engine_->submit(std::move(request), sinks.back());
      EXPECT_TRUE(status.is_ok()) << status.to_string();
    }
    std::vector<std::vector<int32_t>> tokens;
    for (const auto& sink : sinks) {
      EXPECT_TRUE(wait_until_done(*sink)) << "no result in time";
      tokens.emplace_back();
      for (int32_t choice = 0; choice < num_choices; ++choice) {
        const auto part = sink->tokens(static_cast<size_t>(choice));
        tokens.back().insert(tokens.back().end(), part.begin(), part.end());
      }
    }
    return tokens;
  }

  /// The gauge follows the last token within a turn of the engine's loop; false after ten seconds.
  [[nodiscard]] bool frees_all_blocks() const {
    const Deadline deadline = Deadline::after(std::chrono::seconds(10));
    while (metrics().num_blocks_used.value() != 0 && !deadline.is_expired()) {
      std::this_thread::yield();
    }
    return metrics().num_blocks_used.value() == 0;
  }
  [[nodiscard]] const EngineMetrics& metrics() const { return engine_->metrics(); }

 private:
  EngineOnDemoModel() = default;

  // The sink's own limit suits a fake model; sanitizers make the real one take longer.
  static bool wait_until_done(CollectingSink& sink) {
    for (int attempt = 0; attempt < 12; ++attempt) {
      if (sink.wait_until_done_blocking()) {
        return true;
      }
    }
    return false;
  }

  ModelConfig config_;
  std::unique_ptr<kernels::Backend> backend_;
  ModelWeights weights_;
  std::unique_ptr<PagedLatentCache> cache_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<Engine> engine_;  // last: its thread uses the rest
};

class EngineEquivalenceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::vector<int32_t> text;
    auto references = load_all_parity_references();
    ASSERT_TRUE(references.is_ok()) << references.status().to_string();
    for (const ParityReference& reference : references.value()) {
      if (reference.name == "demo_long500") {
        text = reference.input_ids;
      }
    }
    ASSERT_GE(text.size(), 450U);
    // Two families with a shared prefix, lengths on both sides of block borders.
    for (const int64_t length : {1, 40, 63, 64, 65, 129, 200, 300}) {
      prompts_.emplace_back(text.begin(), text.begin() + length);
    }
    for (const int64_t length : {50, 128, 190}) {
      prompts_.emplace_back(text.begin() + 250, text.begin() + 250 + length);
    }
    alone_ = run_alone();
    for (const auto& tokens : alone_) {
      ASSERT_EQ(static_cast<int64_t>(tokens.size()), kNumTokens);
    }
  }

  [[nodiscard]] static std::unique_ptr<EngineOnDemoModel> create(
      const EngineOnDemoModel::Setup& setup) {
    auto engine = EngineOnDemoModel::create(setup);
    EXPECT_TRUE(engine.is_ok()) << engine.status().to_string();
    return engine.is_ok() ? std::move(engine).value() : nullptr;
  }

  [[nodiscard]] static std::vector<std::vector<int32_t>> run_alone() {
    std::vector<std::vector<int32_t>> tokens;
    const auto engine = create({});
    for (const auto& prompt : prompts_) {
      tokens.push_back(engine->generate({prompt}).front());
    }
    return tokens;
  }

  static inline std::vector<std::vector<int32_t>> prompts_;
  static inline std::vector<std::vector<int32_t>> alone_;  ///< each prompt's tokens, run by itself
};

TEST_F(EngineEquivalenceTest, BatchedEqualsAlone) {
  const auto engine = create({});
  EXPECT_EQ(engine->generate(prompts_), alone_);
}

TEST_F(EngineEquivalenceTest, ChunkedEqualsAlone) {
  for (const int64_t tokens : {17, 64, 100}) {
    const auto engine = create({.max_num_batched_tokens = tokens});
    EXPECT_EQ(engine->generate(prompts_), alone_) << "at most " << tokens << " tokens a step";
  }
}

TEST_F(EngineEquivalenceTest, PreemptedEqualsAlone) {
  const auto engine = create({.max_num_batched_tokens = 128, .num_blocks = 12});
  EXPECT_EQ(engine->generate(prompts_), alone_);
  EXPECT_GT(engine->metrics().preemptions.value(), 0) << "12 blocks were meant to be too few";
  EXPECT_TRUE(engine->frees_all_blocks()) << engine->metrics().num_blocks_used.value();
}

TEST_F(EngineEquivalenceTest, PrefixCachedEqualsAlone) {
  const auto engine = create({.enable_prefix_caching = true});
  EXPECT_EQ(engine->generate(prompts_), alone_);
  EXPECT_EQ(engine->generate(prompts_), alone_);
  EXPECT_GT(engine->metrics().prompt_tokens_cached.value(), 64 * 10);
}

TEST_F(EngineEquivalenceTest, PreemptedWithPrefixCacheEqualsAlone) {
  const auto engine =
      create({.max_num_batched_tokens = 96, .num_blocks = 14, .enable_prefix_caching = true});
  EXPECT_EQ(engine->generate(prompts_), alone_);
  EXPECT_EQ(engine->generate(prompts_), alone_);
}

TEST_F(EngineEquivalenceTest, ChoicesOfOnePromptEqualTheChoiceAlone) {
  const auto engine = create({});
  const auto tokens = engine->generate(prompts_, 3);
  for (size_t i = 0; i < prompts_.size(); ++i) {
    std::vector<int32_t> expected;
    for (int choice = 0; choice < 3; ++choice) {
      expected.insert(expected.end(), alone_[i].begin(), alone_[i].end());
    }
    EXPECT_EQ(tokens[i], expected) << "prompt of " << prompts_[i].size() << " tokens";
  }
}

TEST_F(EngineEquivalenceTest, ThreadCountDoesNotChangeTokens) {
  for (const int num_threads : {1, 3}) {
    const auto engine = create({.num_threads = num_threads});
    EXPECT_EQ(engine->generate(prompts_), alone_) << num_threads << " threads";
  }
}

}  // namespace
}  // namespace tessera::test
