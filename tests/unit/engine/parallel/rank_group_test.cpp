#include "engine/parallel/rank_group.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <pthread.h>

#include "kernels/core/check.h"

namespace tessera {
namespace {

TEST(RankGroupTest, RunsEveryRankOncePerRun) {
  for (const int size : {1, 2, 5}) {
    RankGroup group(make_thread_communicators(size, 1));
    std::vector<std::atomic<int>> counts(static_cast<size_t>(size));
    for (int i = 0; i < 50; ++i) {
      group.run_blocking([&](int rank) { ++counts[static_cast<size_t>(rank)]; });
    }
    for (const auto& count : counts) {
      EXPECT_EQ(count, 50);
    }
  }
}

TEST(RankGroupTest, RankZeroIsTheCallerAndOthersHaveNames) {
  RankGroup group(make_thread_communicators(2, 2));
  std::vector<std::thread::id> ids(2);
  std::string name(16, '\0');
  group.run_blocking([&](int rank) {
    ids[static_cast<size_t>(rank)] = std::this_thread::get_id();
    if (rank == 1) {
      pthread_getname_np(pthread_self(), name.data(), name.size());
    }
  });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_NE(ids[1], ids[0]);
  EXPECT_STREQ(name.c_str(), "rank-1");
}

TEST(RankGroupTest, AFailingRankEndsTheOthersWaitAndIsRethrown) {
  for (const int failing : {0, 2}) {
    RankGroup group(make_thread_communicators(3, 3));
    const auto step = [&](int rank) {
      if (rank == failing) {
        throw std::runtime_error("out of memory");
      }
      std::vector<float> own(2);
      group.world(rank).all_reduce({own.data(), kernels::DType::kFloat32, {2}}, {});
    };
    try {
      group.run_blocking(step);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "out of memory");
    }
  }
}

TEST(RankGroupTest, StaysAbortedAfterAFailure) {
  RankGroup group(make_thread_communicators(2, 2));
  EXPECT_THROW(group.run_blocking([](int) { throw DeviceError("both"); }), DeviceError);
  EXPECT_THROW(group.run_blocking([&](int rank) {
    std::vector<float> own(1);
    group.world(rank).all_reduce({own.data(), kernels::DType::kFloat32, {1}}, {});
  }),
               DeviceError);
}

}  // namespace
}  // namespace tessera
