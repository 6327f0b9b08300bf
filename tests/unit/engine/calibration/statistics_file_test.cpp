#include "engine/calibration/statistics_file.h"

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"
#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

class StatisticsFileTest : public ::testing::Test {
 protected:
  StatisticsFileTest() {
    double value = 0.1;
    for (double& sum : statistics_.sums()) {
      sum = value = std::fmod(value * 1.37 + 0.11, 3.0);
    }
  }
  StatusCode load_code(const std::string& key) {
    LatentStatistics other(config_);
    const auto result = load_statistics(path_, key, other);
    if (!result.is_ok()) {  // untouched
      EXPECT_EQ(other.sums().front(), 0.0);
      EXPECT_EQ(other.sums().back(), 0.0);
    }
    return result.status().code();
  }

  const ModelConfig config_ = test::small_model_config();
  test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/statistics";
  LatentStatistics statistics_{config_};
};

TEST_F(StatisticsFileTest, BringsBackTheSameBits) {
  ASSERT_TRUE(save_statistics(path_, "key", 17, statistics_).is_ok());
  LatentStatistics loaded(config_);
  EXPECT_EQ(load_statistics(path_, "key", loaded).value(), 17);
  EXPECT_TRUE(std::equal(loaded.sums().begin(), loaded.sums().end(), statistics_.sums().begin()));
}

TEST_F(StatisticsFileTest, RefusesWhatIsNotItsOwn) {
  EXPECT_EQ(load_code("key"), StatusCode::kNotFound);
  ASSERT_TRUE(save_statistics(path_, "key", 17, statistics_).is_ok());
  EXPECT_EQ(load_code("another"), StatusCode::kInvalidArgument);
  ModelConfig other = config_;
  other.num_hidden_layers = 3;
  LatentStatistics larger(other);
  EXPECT_EQ(load_statistics(path_, "key", larger).status().code(), StatusCode::kInvalidArgument);
  std::ofstream(path_) << "something else";
  EXPECT_EQ(load_code("key"), StatusCode::kInvalidArgument);
}

TEST_F(StatisticsFileTest, NoticesDamage) {
  ASSERT_TRUE(save_statistics(path_, "key", 17, statistics_).is_ok());
  std::string bytes;
  {
    std::ifstream in(path_, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  std::ofstream(path_, std::ios::binary) << bytes.substr(0, bytes.size() - 8);
  EXPECT_EQ(load_code("key"), StatusCode::kDataLoss);
  std::string flipped = bytes;
  flipped[bytes.size() / 2] ^= 1;
  std::ofstream(path_, std::ios::binary) << flipped;
  EXPECT_EQ(load_code("key"), StatusCode::kDataLoss);
  std::ofstream(path_, std::ios::binary) << bytes << "x";
  EXPECT_EQ(load_code("key"), StatusCode::kDataLoss);
}

TEST_F(StatisticsFileTest, SaysWhereItCouldNotBeWritten) {
  const Status status = save_statistics("/nowhere/statistics", "key", 1, statistics_);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_NE(status.message().find("/nowhere/statistics"), std::string::npos);
}

}  // namespace
}  // namespace tessera
