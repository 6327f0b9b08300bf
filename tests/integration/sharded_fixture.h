// What the tests of models that are split over ranks share: models, prompts, greedy traces.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/model_harness.h"
#include "tests/support/sharded_harness.h"

namespace tessera::test {

/// float32 sums in another order: the issue is a wrong term, not rounding.
inline constexpr double kTolerance = 2e-3;
inline constexpr int64_t kNumDecoded = 6;
inline constexpr int64_t kMaxTokens = 256;

inline double max_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
  }
  return worst;
}

inline std::string demo_model() {
  return std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model";
}
/// Of tests/data/parity; "" is the demo model.
inline std::string model_folder(const std::string& name) {
  return name.empty() ? demo_model()
                      : std::string(TESSERA_SOURCE_DIR) + "/tests/data/parity/models/" + name;
}

inline std::unique_ptr<ShardedHarness> load(const ShardedSetup& setup) {
  auto harness = ShardedHarness::load(setup);
  EXPECT_TRUE(harness.is_ok()) << harness.status().to_string();
  return harness.is_ok() ? std::move(harness).value() : nullptr;
}

inline std::vector<int32_t> make_prompt(int64_t length, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<int32_t>((i * i * 31 + i * 7 + 3) % vocab_size));
  }
  return ids;
}

/// The last prompt token's logits, then those of each decoded token.
using Trace = std::vector<std::vector<float>>;

/// Greedy tokens behind the prompt: of the first logits on, appended to `ids`.
inline Trace decode_all(ShardedHarness& model,
                        std::vector<int32_t>& ids,
                        std::vector<float> first) {
  const int64_t vocab = model.config().vocab_size;
  Trace trace = {{first.end() - vocab, first.end()}};
  for (int64_t i = 0; i < kNumDecoded; ++i) {
    ids.push_back(argmax(trace.back().data(), vocab));
    trace.push_back(model.decode(ids));
  }
  return trace;
}

inline void expect_same(const Trace& actual, const Trace& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(max_difference(actual[i], expected[i]), kTolerance) << what << ", step " << i;
  }
}

/// s of each layer: `shared`, again from the front where there are more of them; empty: none.
inline std::vector<int64_t> shared_columns(const ModelConfig& config,
                                           const std::vector<int64_t>& shared) {
  std::vector<int64_t> all;
  for (size_t layer = 0;
       !shared.empty() && all.size() < static_cast<size_t>(config.num_hidden_layers);
       ++layer) {
    all.push_back(shared[layer % shared.size()]);
  }
  return all;
}

}  // namespace tessera::test
