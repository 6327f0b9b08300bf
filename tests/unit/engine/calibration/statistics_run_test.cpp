#include "engine/calibration/statistics_run.h"

#include <gtest/gtest.h>

#include "engine/calibration/statistics_file.h"
#include "tests/support/step_input.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/engine/calibration/dummy_calibration_model.h"

namespace tessera {
namespace {

class StatisticsRunTest : public ::testing::Test {
 protected:
  /// Statistics of the first `count` windows.
  LatentStatistics gather(size_t count, const std::string& path = "") {
    const std::vector<std::vector<int32_t>> windows(windows_.begin(),
                                                    windows_.begin() + static_cast<long>(count));
    reported_.clear();
    return gather_statistics(
               model_.model(),
               {.windows = windows,
                .path = path,
                .key = "key",
                .windows_between_saves = 1,
                .progress = [this](int64_t done,
                                   int64_t total) { reported_.emplace_back(done, total); }})
        .value();
  }
  static bool are_equal(const LatentStatistics& a, const LatentStatistics& b) {
    return std::equal(a.sums().begin(), a.sums().end(), b.sums().begin(), b.sums().end());
  }

  const test::DummyCalibrationModel model_;
  const ModelConfig& config_ = model_.config();
  const std::vector<std::vector<int32_t>> windows_ = {
      test::make_ids(70, 97, 1), test::make_ids(70, 97, 2), test::make_ids(33, 97, 3)};
  std::vector<std::pair<int64_t, int64_t>> reported_;
};

TEST_F(StatisticsRunTest, SeesEveryTokenOfEveryLayer) {
  const LatentStatistics statistics = gather(3);
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    EXPECT_EQ(statistics.num_tokens(layer), 173);
    EXPECT_EQ(statistics.num_queries(layer), 64 + 64 + 31);
    // n has a root mean square of 1 whatever the norm's weight: E[n n^T] has the trace R. Its
    // centred part is less, and so is what varies under attention.
    for (const double trace : {statistics.latent_covariance(layer).trace(),
                               statistics.attention_covariance(layer, 1).trace()}) {
      EXPECT_GT(trace, 1.0);
      EXPECT_LE(trace, 32.0 + 1e-3);
    }
  }
  EXPECT_EQ(reported_.front(), std::make_pair(int64_t{0}, int64_t{3}));
  EXPECT_EQ(reported_.back(), std::make_pair(int64_t{3}, int64_t{3}));
}

TEST_F(StatisticsRunTest, GoesOnWithTheSameBits) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/statistics";
  const LatentStatistics whole = gather(3);
  static_cast<void>(gather(2, path));
  const LatentStatistics resumed = gather(3, path);
  EXPECT_EQ(reported_.front().first, 2);
  EXPECT_TRUE(are_equal(resumed, whole));
  EXPECT_TRUE(are_equal(gather(3, path), whole));  // nothing left to do
  EXPECT_EQ(reported_.size(), 1U);
}

TEST_F(StatisticsRunTest, StartsAnewBesideAFileOfSomethingElse) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/statistics";
  ASSERT_TRUE(save_statistics(path, "another key", 1, LatentStatistics(config_)).is_ok());
  EXPECT_TRUE(are_equal(gather(2, path), gather(2)));
}

}  // namespace
}  // namespace tessera
