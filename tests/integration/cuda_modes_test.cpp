// Groups of two ranks on two GPUs against the same groups on the CPU, in the three ways of sharing
// the attention: greedy tokens in float32, next-token distributions in bfloat16.
// TESSERA_TEST_MODELS, a list of folders with ':' between, names more models;
// TESSERA_TEST_ALL_REDUCE is --all-reduce.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/quality/decode_mode.h"
#include "engine/quality/measured_model.h"
#include "engine/serving/model_parts.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "tests/support/model_harness.h"

namespace tessera::test {
namespace {

using kernels::DType;
using Tokens = std::vector<int32_t>;

constexpr int64_t kNumPrompts = 50;
constexpr int64_t kNewTokens = 64;
constexpr int64_t kMaxPrompt = 160;
/// Logits closer than this are equal as far as float32 can tell.
constexpr float kNoGap = 1e-4F;
/// A first choice may change where bfloat16's error in both logits, in either direction, covers
/// the distance of the two. The error is that of its own row: where another expert is chosen, a
/// whole row is further off than others.
constexpr double kErrorsOfAGap = 4.0;
constexpr double kMaxDivergence = 1e-3;
constexpr double kMinAgreement = 0.97;

struct Case {
  std::string folder;
  std::string mode;
};

std::vector<Case> cases() {
  const char* more = std::getenv("TESSERA_TEST_MODELS");
  std::stringstream list(std::string(TESSERA_SOURCE_DIR) +
                         "/configs/demo_model:" + (more == nullptr ? "" : more));
  std::vector<Case> all;
  for (std::string folder; std::getline(list, folder, ':');) {
    for (const char* mode : {"replicated:2", "dcp:2", "tpla:2"}) {
      all.push_back({folder, mode});
    }
  }
  return all;
}

/// The place of the largest logit and what it is above the second.
struct Choice {
  int32_t token = 0;
  float gap = 0.0F;
};

Choice choose(const float* logits, int64_t vocab) {
  const int32_t best = argmax(logits, vocab);
  float second = -INFINITY;
  for (int64_t i = 0; i < vocab; ++i) {
    second = i == best ? second : std::max(second, logits[i]);
  }
  return {best, logits[best] - second};
}

double root_mean_square_error(const float* exact, const float* rounded, int64_t count) {
  double squares = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double error = exact[i] - rounded[i];
    squares += error * error;
  }
  return std::sqrt(squares / static_cast<double>(count));
}

class CudaModesTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    config_ = ModelConfig::load(GetParam().folder).value();
    std::uniform_int_distribution<int64_t> length(1, kMaxPrompt);
    std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(config_.vocab_size) - 1);
    for (int64_t i = 0; i < kNumPrompts; ++i) {
      Tokens& ids = prompts_.emplace_back(static_cast<size_t>(length(random_)));
      std::generate(ids.begin(), ids.end(), [&] { return token(random_); });
    }
  }
  void TearDown() override {
    if (HasFailure()) {
      std::cerr << "random seed of this test: " << seed_ << '\n';
    }
  }

  /// The case's mode on "cpu" or "cuda", with all prompts in its cache but for their last token.
  std::unique_ptr<MeasuredModel> load(const char* device, DType dtype) {
    WorkerConfig worker;
    worker.device = device;
    const char* sums = std::getenv("TESSERA_TEST_ALL_REDUCE");
    worker.all_reduce = sums != nullptr ? sums : worker.all_reduce;
    worker.dtype = dtype == DType::kFloat32 ? "float32" : "bfloat16";
    DecodeMode mode = parse_decode_mode(GetParam().mode).value();
    EXPECT_TRUE(settle_basis(config_, GetParam().folder, mode).is_ok());
    const ModeSetup setup = resolve_mode(mode, config_).value();
    const auto compute = choose_compute(worker, setup.sharding.num_ranks);
    if (!compute.is_ok()) {
      ADD_FAILURE() << compute.status().to_string();
      return nullptr;
    }
    const auto checkpoint = Checkpoint::open(GetParam().folder);
    auto model = MeasuredModel::create(
        {.config = config_,
         .load_weights =
             [&](kernels::Backend& backend, const LoadOptions& options) {
               return load_model_weights(config_, checkpoint.value(), backend, options);
             },
         .make_backend = compute.value().make_backend,
         .make_communicators = compute.value().make_communicators},
        {.sharding = setup.sharding,
         .transform = &setup.transform,
         .dtype = dtype,
         .num_threads = compute.value().num_threads,
         .num_sequences = kNumPrompts,
         .max_prompt = kMaxPrompt,
         .max_length = kMaxPrompt + kNewTokens});
    if (!model.is_ok()) {
      ADD_FAILURE() << model.status().to_string();
      return nullptr;
    }
    for (int64_t i = 0; i < kNumPrompts; ++i) {
      const Tokens& ids = prompts_[static_cast<size_t>(i)];
      if (ids.size() > 1) {
        model.value()->prefill_blocking(i, 0, {ids.data(), ids.size() - 1});
      }
    }
    return std::move(model).value();
  }

  /// Logits [prompts, V] behind the last tokens of `ids`.
  static std::span<const float> step(MeasuredModel& model, const std::vector<Tokens>& ids) {
    std::vector<MeasuredModel::Row> rows;
    for (size_t i = 0; i < ids.size(); ++i) {
      rows.push_back({.sequence = static_cast<int64_t>(i),
                      .position = static_cast<int64_t>(ids[i].size()) - 1,
                      .id = ids[i].back()});
    }
    return model.decode_blocking(rows);
  }
  [[nodiscard]] const float* row(std::span<const float> logits, size_t i) const {
    return logits.data() + i * static_cast<size_t>(config_.vocab_size);
  }

  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  ModelConfig config_;
  std::vector<Tokens> prompts_;
};

TEST_P(CudaModesTest, GreedyTokensInFloat32AreTheCpus) {
  const auto cpu = load("cpu", DType::kFloat32);
  const auto gpu = load("cuda", DType::kFloat32);
  ASSERT_TRUE(cpu != nullptr && gpu != nullptr);
  std::vector<Tokens> expected = prompts_;
  std::vector<Tokens> actual = prompts_;
  std::vector<bool> is_equal(prompts_.size(), true);
  for (int64_t t = 0; t < kNewTokens; ++t) {
    const auto cpu_logits = step(*cpu, expected);
    const auto gpu_logits = step(*gpu, actual);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const Choice choice = choose(row(cpu_logits, i), config_.vocab_size);
      expected[i].push_back(choice.token);
      actual[i].push_back(argmax(row(gpu_logits, i), config_.vocab_size));
      if (is_equal[i] && actual[i].back() != choice.token) {
        is_equal[i] = false;
        EXPECT_LT(choice.gap, kNoGap) << "prompt " << i << ", new token " << t;
      }
    }
  }
  std::cout << GetParam().folder << ' ' << GetParam().mode << ": "
            << std::count(is_equal.begin(), is_equal.end(), true) << " of " << kNumPrompts
            << " prompts have equal tokens\n";
}

TEST_P(CudaModesTest, BFloat16StaysNearTheCpusFloat32) {
  const auto cpu = load("cpu", DType::kFloat32);
  const auto gpu = load("cuda", DType::kBFloat16);
  ASSERT_TRUE(cpu != nullptr && gpu != nullptr);
  const int64_t vocab = config_.vocab_size;
  std::vector<Tokens> ids = prompts_;
  double kl = 0.0;
  double errors = 0.0;
  double widest = 0.0;  // gap of a changed choice, in errors of its row
  int64_t num_changed = 0;
  for (int64_t t = 0; t < kNewTokens; ++t) {
    const auto exact = step(*cpu, ids);
    const auto rounded = step(*gpu, ids);
    for (size_t i = 0; i < ids.size(); ++i) {
      const Choice choice = choose(row(exact, i), vocab);
      const double error = root_mean_square_error(row(exact, i), row(rounded, i), vocab);
      kl += divergence(row(exact, i), row(rounded, i), vocab);
      errors += error;
      if (argmax(row(rounded, i), vocab) != choice.token) {
        ++num_changed;
        widest = std::max(widest, choice.gap / error);
      }
      ids[i].push_back(choice.token);
    }
  }
  constexpr auto kTokens = static_cast<double>(kNumPrompts * kNewTokens);
  const double agreement = 1.0 - static_cast<double>(num_changed) / kTokens;
  std::cout << GetParam().folder << ' ' << GetParam().mode << ": mean KL " << kl / kTokens
            << ", same first choice " << agreement << ", mean error of a row's logits "
            << errors / kTokens << ", widest gap of a changed choice " << widest
            << " errors of its row\n";
  EXPECT_LT(kl / kTokens, kMaxDivergence);
  EXPECT_GE(agreement, kMinAgreement);
  EXPECT_LT(widest, kErrorsOfAGap);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaModesTest, ::testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = test.param.folder.substr(test.param.folder.find_last_of('/') + 1) + "_" +
                     test.param.mode.substr(0, test.param.mode.find(':'));
  return name;
});

}  // namespace
}  // namespace tessera::test
