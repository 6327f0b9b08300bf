#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/sampling_params.h"
#include "tests/unit/kernels/cuda/parity_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::kMaxTopLogprobs;
using kernels::SampleRow;

constexpr int64_t kVocab = 129'281;

struct Sampled {
  explicit Sampled(int64_t count)
      : token_ids(DType::kInt32, std::vector<int64_t>{count}),
        logprobs(DType::kFloat32, std::vector<int64_t>{count}),
        top_ids(DType::kInt32, std::vector<int64_t>{count, kMaxTopLogprobs}),
        top_logprobs(DType::kFloat32, std::vector<int64_t>{count, kMaxTopLogprobs}) {}
  HostTensor token_ids, logprobs, top_ids, top_logprobs;
};

class SamplingParityTest : public ParityTest {
 protected:
  /// Rows of which each names some ids of the history and the bias.
  SampleRow random_row(int32_t index) {
    SampleRow row;
    row.logits_row = index % 3;
    row.temperature = static_cast<float>(random_.uniform(0.3, 1.5));
    row.num_top_logprobs = index % 4 == 0 ? 20 : index % 4 - 2;
    row.seed = static_cast<uint64_t>(random_.index(1 << 30));
    row.choice = static_cast<uint32_t>(index);
    row.position = static_cast<uint32_t>(random_.index(1000));
    return row;
  }

  void compare(const std::vector<SampleRow>& rows) {
    const auto count = static_cast<int64_t>(rows.size());
    // A few likely tokens among many unlikely ones, as models have them.
    Array peaked = random_.array({3, kVocab});
    for (double& logit : peaked.values) {
      logit = 25.0 * std::pow(logit, 7.0);
    }
    const HostTensor logits(DType::kFloat32, peaked, 7);
    const std::vector<int32_t> ids = random_.permutation(kVocab);
    const HostTensor history_ids(std::vector<int32_t>(ids.begin(), ids.begin() + 600));
    std::vector<int32_t> times(600);
    for (int32_t& number : times) {
      number = static_cast<int32_t>(random_.index(4));
    }
    const HostTensor history_counts(times);
    const HostTensor bias_ids(std::vector<int32_t>(ids.begin() + 300, ids.begin() + 700));
    const HostTensor bias_values(DType::kFloat32, random_.array({400}, 12.0));
    Sampled expected(count);
    Sampled actual(count);
    const auto sample = [&](kernels::Ops& ops, Sampled& result) {
      ops.sample(
          {.logits = logits.view(),
           .rows = {rows.data(), DType::kUint8, {count * static_cast<int64_t>(sizeof(SampleRow))}},
           .history_ids = history_ids.view(),
           .history_counts = history_counts.view(),
           .bias_ids = bias_ids.view(),
           .bias_values = bias_values.view(),
           .token_ids = result.token_ids.view(),
           .logprobs = result.logprobs.view(),
           .top_ids = result.top_ids.view(),
           .top_logprobs = result.top_logprobs.view()},
          {});
    };
    sample(cpu(), expected);
    sample(gpu(), actual);
    // A draw at the edge between two tokens may fall to either side: 130 thousand exponentials with
    // errors in the seventh digit shift the edges by a few thousandths of an unlikely token.
    const Array want = expected.token_ids.to_array();
    const Array got = actual.token_ids.to_array();
    int64_t num_different = 0;
    for (size_t i = 0; i < want.values.size(); ++i) {
      num_different += got.values[i] != want.values[i] ? 1 : 0;
    }
    EXPECT_LE(num_different, 1 + count / 30);
    expect_same(actual.top_ids, expected.top_ids, 0.0);
    expect_same(actual.top_logprobs, expected.top_logprobs, kFloat32Parity);
    if (num_different == 0) {
      expect_same(actual.logprobs, expected.logprobs, kFloat32Parity);
    }
  }
};

TEST_F(SamplingParityTest, Greedy) {
  std::vector<SampleRow> rows;
  for (int32_t i = 0; i < 12; ++i) {
    rows.push_back(random_row(i));
    rows.back().temperature = 0.0F;
  }
  compare(rows);
}

TEST_F(SamplingParityTest, LimitsOfEveryKind) {
  std::vector<SampleRow> rows;
  for (int32_t i = 0; i < 60; ++i) {
    rows.push_back(random_row(i));
    rows.back().top_k = i % 3 == 0 ? 0 : 1 << (i % 12);
    rows.back().top_p = i % 2 == 0 ? 1.0F : static_cast<float>(random_.uniform(0.1, 0.99));
    rows.back().min_p = i % 5 == 0 ? 0.05F : 0.0F;
  }
  compare(rows);
}

TEST_F(SamplingParityTest, PenaltiesAndBias) {
  std::vector<SampleRow> rows;
  for (int32_t i = 0; i < 40; ++i) {
    rows.push_back(random_row(i));
    SampleRow& row = rows.back();
    row.temperature = i % 2 == 0 ? 0.0F : row.temperature;
    row.repetition_penalty = 1.3F;
    row.presence_penalty = 0.4F;
    row.frequency_penalty = -0.2F;
    row.history_begin = static_cast<int32_t>(random_.index(300));
    row.history_end = row.history_begin + 300;
    row.bias_begin = i % 3 == 0 ? 0 : 100;
    row.bias_end = i % 3 == 0 ? 0 : 400;
  }
  compare(rows);
}

}  // namespace
}  // namespace tessera::testing
