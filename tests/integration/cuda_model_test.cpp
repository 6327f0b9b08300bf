// A whole model on a GPU against the same model on the CPU: greedy tokens in float32, logits in
// bfloat16. TESSERA_TEST_MODELS, a list of folders with ':' between, names more models.

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

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/support/model_harness.h"

namespace tessera::test {
namespace {

using kernels::DType;

constexpr int64_t kMaxTokens = 320;
constexpr int64_t kNewTokens = 64;
constexpr int kNumPrompts = 50;
/// Logits closer than this are equal as far as float32 can tell.
constexpr float kNoGap = 1e-4F;

std::vector<std::string> model_folders() {
  std::vector<std::string> folders = {std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model"};
  const char* more = std::getenv("TESSERA_TEST_MODELS");
  std::stringstream list(more == nullptr ? "" : more);
  for (std::string folder; std::getline(list, folder, ':');) {
    folders.push_back(folder);
  }
  return folders;
}

/// The two largest logits' distance.
float gap(std::vector<float> logits) {
  std::partial_sort(logits.begin(), logits.begin() + 2, logits.end(), std::greater<>());
  return logits[0] - logits[1];
}

class CudaModelTest : public ::testing::TestWithParam<std::string> {
 protected:
  void load(DType dtype) {
    auto cpu = ModelHarness::load(GetParam(), dtype, kMaxTokens, 8);
    auto gpu =
        ModelHarness::load(GetParam(), dtype, kMaxTokens, kernels::cuda::create_cuda_backend(0));
    ASSERT_TRUE(cpu.is_ok()) << cpu.status().to_string();
    ASSERT_TRUE(gpu.is_ok()) << gpu.status().to_string();
    cpu_ = std::move(cpu).value();
    gpu_ = std::move(gpu).value();
  }
  std::vector<int32_t> random_prompt() {
    std::uniform_int_distribution<int32_t> length(1, kMaxTokens - kNewTokens);
    std::uniform_int_distribution<int32_t> token(
        0, static_cast<int32_t>(cpu_->config().vocab_size) - 1);
    std::vector<int32_t> ids(static_cast<size_t>(length(random_)));
    std::generate(ids.begin(), ids.end(), [&] { return token(random_); });
    return ids;
  }
  void TearDown() override {
    if (HasFailure()) {
      std::cerr << "random seed of this test: " << seed_ << '\n';
    }
  }

  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::unique_ptr<ModelHarness> cpu_, gpu_;
};

TEST_P(CudaModelTest, GreedyTokensInFloat32AreTheCpus) {
  load(DType::kFloat32);
  int num_equal = 0;
  for (int i = 0; i < kNumPrompts; ++i) {
    const std::vector<int32_t> prompt = random_prompt();
    const std::vector<int32_t> expected = cpu_->generate(prompt, kNewTokens);
    const std::vector<int32_t> actual = gpu_->generate(prompt, kNewTokens);
    if (actual == expected) {
      ++num_equal;
      continue;
    }
    // Up to the first difference both have seen the same tokens.
    const auto differs = std::mismatch(expected.begin(), expected.end(), actual.begin()).first;
    std::vector<int32_t> seen = prompt;
    seen.insert(seen.end(), expected.begin(), differs);
    const auto rows = cpu_->prefill(seen, 0, static_cast<int64_t>(seen.size()));
    EXPECT_LT(gap({rows.end() - cpu_->config().vocab_size, rows.end()}), kNoGap)
        << "prompt " << i << ", new token " << differs - expected.begin();
  }
  std::cout << GetParam() << ": " << num_equal << " of " << kNumPrompts
            << " prompts have equal tokens\n";
}

TEST_P(CudaModelTest, LogitsInBFloat16AreNearTheCpusInFloat32) {
  load(DType::kBFloat16);
  auto exact = ModelHarness::load(GetParam(), DType::kFloat32, kMaxTokens, 8);
  ASSERT_TRUE(exact.is_ok()) << exact.status().to_string();
  const int64_t vocab = cpu_->config().vocab_size;
  double kl_cpu = 0.0;
  double kl_gpu = 0.0;
  int64_t num_rows = 0;
  int64_t num_agree = 0;
  for (int i = 0; i < kNumPrompts / 5; ++i) {
    const std::vector<int32_t> prompt = random_prompt();
    const auto count = static_cast<int64_t>(prompt.size());
    const std::vector<float> truth = exact.value()->prefill(prompt, 0, count);
    const std::vector<float> cpu = cpu_->prefill(prompt, 0, count);
    std::vector<float> gpu = gpu_->prefill(prompt, 0, 100);
    const std::vector<float> last = gpu_->decode(prompt);
    std::copy(last.begin(), last.end(), gpu.end() - vocab);  // the decode path's own
    for (int64_t row = 0; row < count; ++row, ++num_rows) {
      const int64_t at = row * vocab;
      kl_cpu += divergence(&truth[at], &cpu[at], vocab);
      kl_gpu += divergence(&truth[at], &gpu[at], vocab);
      num_agree += argmax(&truth[at], vocab) == argmax(&gpu[at], vocab) ? 1 : 0;
    }
  }
  const auto rows = static_cast<double>(num_rows);
  std::cout << GetParam() << ": mean KL from float32 " << kl_gpu / rows << " (the CPU's "
            << kl_cpu / rows << "), top-1 agreement " << static_cast<double>(num_agree) / rows
            << " of " << num_rows << " tokens\n";
  // No worse than what the same rounding costs on the CPU.
  EXPECT_LE(kl_gpu, 1.5 * kl_cpu + 1e-6 * rows);
  EXPECT_GE(static_cast<double>(num_agree), 0.97 * rows);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         CudaModelTest,
                         ::testing::ValuesIn(model_folders()),
                         [](const auto& model) { return "Model" + std::to_string(model.index); });

}  // namespace
}  // namespace tessera::test
