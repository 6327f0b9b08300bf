// A request that one engine prefills and another decodes gets the tokens of one engine that does
// both, on the bundled model in float32.

#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/cache/paged_latent_cache.h"
#include "engine/runner/landed_probe.h"
#include "engine/runner/model_runner.h"
#include "engine/serving/decode_engine.h"
#include "engine/serving/prefill_engine.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/handoff_wire.h"
#include "tests/support/parity_reference.h"

namespace tessera::test {
namespace {

using ::tessera::testing::CollectingSink;
using ::tessera::testing::LocalDecodePort;
using ::tessera::testing::LocalKvReceiver;
using ::tessera::testing::LocalKvSender;
using ::tessera::testing::RoutingSink;

constexpr int64_t kMaxModelLen = 640;
constexpr int64_t kNumBlocks = 200;
constexpr int64_t kNumTokens = 20;

/// The bundled model, its cache and its runner: what any engine is built on.
struct ModelOnCpu {
  [[nodiscard]] static Result<std::unique_ptr<ModelOnCpu>> create(int64_t max_batched_tokens,
                                                                  bool keeps_probes = false) {
    auto self = std::make_unique<ModelOnCpu>();
    const std::string folder = std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model";
    TESSERA_TRY(self->config, ModelConfig::load(folder));
    TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(folder));
    self->backend = kernels::cpu::create_cpu_backend(1);
    TESSERA_TRY(self->weights, load_model_weights(self->config, checkpoint, *self->backend, {}));
    const auto num_layers = static_cast<size_t>(self->config.num_hidden_layers);
    const LatentLayout layout{
        .latent_widths = std::vector<int64_t>(num_layers, self->config.kv_lora_rank),
        .rope_width = self->config.qk_rope_head_dim,
        .dtype = kernels::DType::kFloat32};
    TESSERA_TRY(
        PagedLatentCache cache,
        PagedLatentCache::create(self->backend->device(), LatentShard::full(layout), kNumBlocks));
    self->cache = std::make_unique<PagedLatentCache>(std::move(cache));
    if (keeps_probes) {
      TESSERA_RETURN_IF_ERROR(self->cache->keep_probes());
    }
    EngineOptions& options = self->options;
    options.vocab_size = self->config.vocab_size;
    options.max_model_len = kMaxModelLen;
    options.num_blocks = kNumBlocks;
    options.max_num_seqs = 16;
    options.max_num_batched_tokens = max_batched_tokens;
    options.cache_fingerprint = "demo float32";
    const StepLimits limits{.max_tokens = max_batched_tokens,
                            .max_sequences = options.max_num_seqs,
                            .max_logits_rows = options.max_num_seqs,
                            .max_model_len = kMaxModelLen};
    self->runner = std::make_unique<ModelRunner>(
        self->config, self->weights, limits, *self->cache, *self->backend);
    return self;
  }
  [[nodiscard]] char* block_memory() const {
    return static_cast<char*>(cache->image_address(0, 0));
  }

  ModelConfig config;
  std::unique_ptr<kernels::Backend> backend;
  ModelWeights weights;
  std::unique_ptr<PagedLatentCache> cache;
  EngineOptions options;
  std::unique_ptr<ModelRunner> runner;
};

// The sink's own limit suits a fake model; sanitizers make the real one take longer.
bool wait_until_done(CollectingSink& sink) {
  for (int attempt = 0; attempt < 12; ++attempt) {
    if (sink.wait_until_done_blocking()) {
      return true;
    }
  }
  return false;
}

class CacheSource final : public BlockSource {
 public:
  explicit CacheSource(const PagedLatentCache& cache) : cache_(cache) {}
  const void* image_address(int32_t block_id, int32_t image) const override {
    return cache_.image_address(block_id, image);
  }
  int64_t image_bytes(int32_t image) const override { return cache_.image_bytes(image); }
  int32_t num_images() const override { return 1; }
  std::vector<double> probes(std::span<const int32_t> block_ids,
                             int64_t begin,
                             int64_t end) const override {
    return cache_.probes_blocking(block_ids, begin, end);
  }

 private:
  const PagedLatentCache& cache_;
};

/// Prefill and decode engines, joined in this process.
class Pair final {
 public:
  Pair(std::unique_ptr<ModelOnCpu> prefill_model, std::unique_ptr<ModelOnCpu> decode_model)
      : prefill_model_(std::move(prefill_model)),
        decode_model_(std::move(decode_model)),
        source_(*prefill_model_->cache),
        landed_probe_(*decode_model_->cache, *decode_model_->backend),
        sender_(prefill_mailbox_),
        port_(prefill_mailbox_),
        receiver_(decode_mailbox_,
                  0,
                  decode_model_->block_memory(),
                  decode_model_->cache->block_bytes()) {
    port_.add_leader("leader", decode_mailbox_);
    WorkerInfo info;
    info.layout_fingerprint = "demo";
    info.max_local_prefill_tokens = 70;
    decode_ = DecodeEngine::create(
                  decode_model_->options,
                  {},
                  info,
                  {.runner = *decode_model_->runner,
                   .receivers = {&receiver_},
                   .mailbox = decode_mailbox_,
                   .check_probes =
                       [this](const std::vector<double>& expected, const LandedTokens& landed) {
                         return check_probes(expected, landed);
                       }})
                  .value();
    prefill_ = PrefillEngine::create(prefill_model_->options,
                                     {},
                                     info,
                                     {.runner = *prefill_model_->runner,
                                      .source = source_,
                                      .sender = sender_,
                                      .port = port_,
                                      .mailbox = prefill_mailbox_})
                   .value();
  }

  [[nodiscard]] std::shared_ptr<CollectingSink> submit(const GenerationRequest& generation) {
    auto client = std::make_shared<CollectingSink>(static_cast<size_t>(generation.num_choices));
    PrefillRequest request{
        .key = {generation.id, 1}, .generation = generation, .decode_candidates = {"leader"}};
    auto routing = std::make_shared<RoutingSink>(
        request, [this](const std::string&) { return decode_.get(); }, client);
    const Status status = prefill_->prefill(std::move(request), routing);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return client;
  }
  [[nodiscard]] bool becomes_empty() const {
    const Deadline deadline = Deadline::after(std::chrono::seconds(10));
    const auto num_used = [this] {
      return prefill_->metrics().num_blocks_used.value() +
             decode_->metrics().num_blocks_used.value() +
             static_cast<int64_t>(receiver_.num_expected());
    };
    while (num_used() != 0 && !deadline.is_expired()) {
      std::this_thread::yield();
    }
    return num_used() == 0;
  }
  /// Handoffs whose probes were compared.
  [[nodiscard]] int64_t num_probed() const { return num_probed_.load(); }
  [[nodiscard]] PrefillEngine& prefill() { return *prefill_; }
  [[nodiscard]] DecodeEngine& decode() { return *decode_; }

 private:
  Status check_probes(const std::vector<double>& expected, const LandedTokens& landed) {
    RankBlocks blocks{.ids = {}, .first_index = landed.begin / kBlockTokens, .end = landed.end};
    const auto& ids = landed.block_ids;
    blocks.ids.assign(ids.begin() + blocks.first_index, ids.end());
    const std::vector<kernels::ProbeSum> sums = {landed_probe_.sum_blocking(blocks)};
    ++num_probed_;
    return compare_probes({}, expected, sums);
  }

  std::unique_ptr<ModelOnCpu> prefill_model_;
  std::unique_ptr<ModelOnCpu> decode_model_;
  CacheSource source_;
  LandedProbe landed_probe_;
  std::atomic<int64_t> num_probed_{0};
  PrefillMailbox prefill_mailbox_;
  DecodeMailbox decode_mailbox_;
  LocalKvSender sender_;
  LocalDecodePort port_;
  LocalKvReceiver receiver_;
  std::unique_ptr<DecodeEngine> decode_;
  std::unique_ptr<PrefillEngine> prefill_;  // last: ends first
};

class HandoffTest : public ::testing::Test {
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
    combined_model_ = ModelOnCpu::create(1024).value();
    combined_ = Engine::create(combined_model_->options, *combined_model_->runner).value();
    pair_ = std::make_unique<Pair>(ModelOnCpu::create(100, true).value(),
                                   ModelOnCpu::create(256).value());
  }
  void TearDown() override { EXPECT_TRUE(pair_->becomes_empty()); }

  [[nodiscard]] GenerationRequest make_request(int64_t begin, int64_t num_tokens) const {
    GenerationRequest request;
    request.id = RequestId::random();
    request.prompt_ids = {text_.begin() + begin, text_.begin() + begin + num_tokens};
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = kNumTokens;
    request.sampling.ignore_eos = true;
    return request;
  }
  [[nodiscard]] static std::vector<std::vector<int32_t>> tokens_of(
      const std::shared_ptr<CollectingSink>& sink, int32_t num_choices) {
    EXPECT_TRUE(wait_until_done(*sink)) << "no result in time";
    EXPECT_FALSE(sink->error().has_value()) << sink->error()->to_string();
    std::vector<std::vector<int32_t>> tokens;
    for (int32_t choice = 0; choice < num_choices; ++choice) {
      tokens.push_back(sink->tokens(static_cast<size_t>(choice)));
      const auto events = sink->events(static_cast<size_t>(choice));
      for (size_t i = 0; i < events.size(); ++i) {
        EXPECT_EQ(events[i].index, events.front().index + static_cast<int64_t>(i));
      }
    }
    return tokens;
  }
  [[nodiscard]] std::vector<std::vector<int32_t>> run_combined(const GenerationRequest& request) {
    auto sink = std::make_shared<CollectingSink>(static_cast<size_t>(request.num_choices));
    EXPECT_TRUE(combined_->submit(request, sink).is_ok());
    return tokens_of(sink, request.num_choices);
  }
  [[nodiscard]] std::vector<std::vector<int32_t>> run_pair(const GenerationRequest& request) {
    return tokens_of(pair_->submit(request), request.num_choices);
  }

  std::vector<int32_t> text_;
  std::unique_ptr<ModelOnCpu> combined_model_;
  std::unique_ptr<Engine> combined_;
  std::unique_ptr<Pair> pair_;
};

TEST_F(HandoffTest, GreedyTokensEqualTheCombinedEngines) {
  for (const int64_t num_tokens : {1, 2, 40, 63, 64, 65, 127, 128, 129, 200, 256, 300}) {
    const GenerationRequest request = make_request(0, num_tokens);
    EXPECT_EQ(run_pair(request), run_combined(request)) << num_tokens << " tokens";
  }
  EXPECT_GT(pair_->prefill().metrics().prompt_tokens_cached.value(), 0);
  EXPECT_GT(pair_->decode().handoff_metrics().prompt_tokens_held.value(), 0);
  EXPECT_EQ(pair_->num_probed(), 12);
  EXPECT_EQ(pair_->decode().handoff_metrics().probe_mismatches.value(), 0);
}

TEST_F(HandoffTest, ManyAtOnceEqualTheCombinedEngines) {
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<CollectingSink>> clients;
  for (int64_t i = 0; i < 24; ++i) {
    requests.push_back(make_request(i * 5, 1 + (i * 37) % 300));
    clients.push_back(pair_->submit(requests.back()));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(tokens_of(clients[i], 1), run_combined(requests[i])) << "request " << i;
  }
}

TEST_F(HandoffTest, ChoicesShareOnePrefillAndDrawTheSameTokens) {
  for (const int64_t num_tokens : {64, 70}) {
    GenerationRequest request = make_request(100, num_tokens);
    request.num_choices = 3;
    request.sampling.temperature = 0.9F;
    request.sampling.seed = 17;
    request.sampling.presence_penalty = 0.5F;
    const auto tokens = run_pair(request);
    EXPECT_EQ(tokens, run_combined(request)) << num_tokens << " tokens";
    EXPECT_NE(tokens[0], tokens[1]) << "choices draw their own random numbers";
  }
}

TEST_F(HandoffTest, AReplayContinuesWhereTheStreamBroke) {
  GenerationRequest request = make_request(30, 90);
  request.sampling.temperature = 0.8F;
  request.sampling.seed = 5;
  request.sampling.repetition_penalty = 1.2F;
  request.sampling.min_tokens = 12;
  const std::vector<int32_t> whole = run_combined(request).front();
  for (const int64_t num_streamed : {1, 7, 19}) {
    GenerationRequest replay = request;
    replay.id = RequestId::random();
    replay.prompt_ids.insert(replay.prompt_ids.end(), whole.begin(), whole.begin() + num_streamed);
    replay.num_replayed_tokens = num_streamed;
    const std::vector<int32_t> rest(whole.begin() + num_streamed, whole.end());
    EXPECT_EQ(run_pair(replay).front(), rest) << num_streamed << " tokens streamed before";
    EXPECT_EQ(run_combined(replay).front(), rest) << num_streamed << " tokens streamed before";
  }
}

TEST_F(HandoffTest, ALocalPrefillEqualsTheCombinedEngines) {
  for (const int64_t num_tokens : {1, 64, 70}) {
    const GenerationRequest request = make_request(10, num_tokens);
    auto client = std::make_shared<CollectingSink>();
    ASSERT_TRUE(pair_->decode().generate({request.id, 1}, request, client).is_ok());
    EXPECT_EQ(tokens_of(client, 1), run_combined(request)) << num_tokens << " tokens";
  }
}

}  // namespace
}  // namespace tessera::test
