#include "engine/parallel/thread_communicator.h"

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/parallel/rank_group.h"
#include "kernels/core/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;
using kernels::TensorView;
using Floats = std::vector<float>;

TensorView view_of(Floats& values, std::initializer_list<int64_t> shape) {
  return {values.data(), DType::kFloat32, shape};
}

/// The parameter is the number of ranks.
class ThreadCommunicatorTest : public ::testing::TestWithParam<int> {
 protected:
  [[nodiscard]] int size() const { return GetParam(); }
  /// `count` values that differ from rank to rank.
  [[nodiscard]] static Floats values_of(int rank, int64_t count) {
    Floats values;
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(static_cast<float>(1000 * rank + i));
    }
    return values;
  }

  RankGroup group_{make_thread_communicators(GetParam(), GetParam())};
};

TEST_P(ThreadCommunicatorTest, AllReduceGivesEveryRankTheSum) {
  std::vector<Floats> values(static_cast<size_t>(size()));
  group_.run_blocking([&](int rank) {
    Floats& own = values[static_cast<size_t>(rank)];
    own = values_of(rank, 7);
    group_.world(rank).all_reduce(view_of(own, {7}), {});
  });
  const auto ranks = static_cast<float>(size());
  for (const Floats& own : values) {
    for (size_t i = 0; i < own.size(); ++i) {
      EXPECT_EQ(own[i], 1000.0F * ranks * (ranks - 1) / 2 + ranks * static_cast<float>(i));
    }
  }
}

TEST_P(ThreadCommunicatorTest, AllReduceAddsInTheOrderOfRanks) {
  // 1e8 swallows 1: the order of the terms shows in the sum.
  const Floats terms = {1e8F, 1.0F, -1e8F, 1.0F, 3.0F};
  float expected = terms[0];
  for (size_t rank = 1; rank < static_cast<size_t>(size()); ++rank) {
    expected += terms[rank];
  }
  std::vector<Floats> values(static_cast<size_t>(size()));
  group_.run_blocking([&](int rank) {
    Floats& own = values[static_cast<size_t>(rank)];
    own = {terms[static_cast<size_t>(rank)]};
    group_.world(rank).all_reduce(view_of(own, {1}), {});
  });
  for (const Floats& own : values) {
    EXPECT_EQ(own[0], expected);
  }
}

TEST_P(ThreadCommunicatorTest, ReduceScatterGivesEachRankItsHeads) {
  const auto backend = kernels::cpu::create_cpu_backend(1);
  constexpr int64_t kRows = 3;
  constexpr int64_t kHeads = 2;
  constexpr int64_t kWidth = 4;
  const int64_t row_width = size() * kHeads * kWidth;
  std::vector<Floats> results(static_cast<size_t>(size()));
  group_.run_blocking([&](int rank) {
    Floats partial = values_of(rank, kRows * row_width);
    Floats& out = results[static_cast<size_t>(rank)];
    out.resize(kRows * kHeads * kWidth);
    const TensorView own = view_of(out, {kRows, kHeads, kWidth});
    group_.world(rank).reduce_scatter_heads(
        view_of(partial, {kRows, size() * kHeads, kWidth}), own, own, backend->ops(), {});
  });
  const auto ranks = static_cast<float>(size());
  for (int rank = 0; rank < size(); ++rank) {
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t i = 0; i < kHeads * kWidth; ++i) {
        const auto at = static_cast<float>(row * row_width + rank * kHeads * kWidth + i);
        EXPECT_EQ(
            results[static_cast<size_t>(rank)][static_cast<size_t>(row * kHeads * kWidth + i)],
            1000.0F * ranks * (ranks - 1) / 2 + ranks * at);
      }
    }
  }
}

TEST_P(ThreadCommunicatorTest, ReduceScatterRoundsToTheTypeOfItsResult) {
  constexpr int64_t kRows = 2;
  constexpr int64_t kWidth = 3;
  const auto backend = kernels::cpu::create_cpu_backend(1);
  std::vector<std::vector<uint16_t>> results(static_cast<size_t>(size()));
  group_.run_blocking([&](int rank) {
    // The ranks' sum lies a bit above the middle of 1 + 2^-7 and 1 + 2^-6, its neighbours.
    Floats partial(static_cast<size_t>(kRows * size() * kWidth),
                   (1.0F + 0x1p-7F + 0x1.01p-8F) / static_cast<float>(size()));
    Floats sum(kRows * kWidth);
    auto& out = results[static_cast<size_t>(rank)];
    out.resize(kRows * kWidth, 0xffff);
    group_.world(rank).reduce_scatter_heads(view_of(partial, {kRows, size(), kWidth}),
                                            view_of(sum, {kRows, 1, kWidth}),
                                            {out.data(), DType::kBFloat16, {kRows, 1, kWidth}},
                                            backend->ops(),
                                            {});
  });
  for (const auto& out : results) {
    EXPECT_EQ(out, std::vector<uint16_t>(kRows * kWidth, 0x3f82));
  }
}

TEST_P(ThreadCommunicatorTest, AllGatherColumnsTakesUnevenWidths) {
  // Rank r has r + 1 columns; only rank 0 wants the result.
  const int64_t width = size() * (size() + 1) / 2;
  Floats gathered(static_cast<size_t>(2 * width), -1.0F);
  group_.run_blocking([&](int rank) {
    Floats own(static_cast<size_t>(2 * (rank + 1)));
    for (size_t i = 0; i < own.size(); ++i) {
      own[i] = static_cast<float>(100 * rank) + static_cast<float>(i);
    }
    group_.world(rank).all_gather_columns(
        view_of(own, {2, rank + 1}), rank == 0 ? view_of(gathered, {2, width}) : TensorView{}, {});
  });
  size_t at = 0;
  for (int row = 0; row < 2; ++row) {
    for (int rank = 0; rank < size(); ++rank) {
      for (int column = 0; column <= rank; ++column) {
        EXPECT_EQ(gathered[at++], static_cast<float>(100 * rank + row * (rank + 1) + column));
      }
    }
  }
}

TEST_P(ThreadCommunicatorTest, AllGatherStacksTheRanks) {
  std::vector<Floats> results(static_cast<size_t>(size()), Floats(static_cast<size_t>(6 * size())));
  group_.run_blocking([&](int rank) {
    Floats own = values_of(rank, 6);
    group_.world(rank).all_gather(
        view_of(own, {2, 3}), view_of(results[static_cast<size_t>(rank)], {size(), 2, 3}), {});
  });
  for (const Floats& result : results) {
    for (int rank = 0; rank < size(); ++rank) {
      for (int i = 0; i < 6; ++i) {
        EXPECT_EQ(result[static_cast<size_t>(6 * rank + i)], static_cast<float>(1000 * rank + i));
      }
    }
  }
}

TEST_P(ThreadCommunicatorTest, ManyCollectivesInARowDoNotMix) {
  std::atomic<int> num_wrong{0};
  group_.run_blocking([&](int rank) {
    for (int64_t i = 0; i < 300; ++i) {
      const int64_t count = 1 + i % 5;  // staging of changing size
      Floats own(static_cast<size_t>(count), static_cast<float>(i));
      group_.world(rank).all_reduce(view_of(own, {count}), {});
      for (const float value : own) {
        num_wrong += value == static_cast<float>(i * size()) ? 0 : 1;
      }
    }
  });
  EXPECT_EQ(num_wrong, 0);
}

TEST_P(ThreadCommunicatorTest, EmptyTensorsKeepTheRanksInStep) {
  std::vector<Floats> after(static_cast<size_t>(size()), Floats{1.0F, 2.0F});
  group_.run_blocking([&](int rank) {
    Floats none;
    group_.world(rank).all_reduce(view_of(none, {0, 4}), {});
    group_.world(rank).all_gather_columns(
        view_of(none, {0, 4}), view_of(none, {0, 4 * size()}), {});
    group_.world(rank).all_reduce(view_of(after[static_cast<size_t>(rank)], {1, 2}), {});
  });
  const auto num_ranks = static_cast<float>(size());
  for (const Floats& sum : after) {
    EXPECT_EQ(sum, (Floats{num_ranks, 2.0F * num_ranks}));
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ThreadCommunicatorTest, ::testing::Range(1, 6));

TEST(ThreadCommunicatorSubgroupTest, SumsOnlyWithinTheSubgroup) {
  RankGroup group(make_thread_communicators(4, 2));
  std::vector<Floats> values(4);
  group.run_blocking([&](int rank) {
    EXPECT_EQ(group.attention(rank).rank(), rank % 2);
    EXPECT_EQ(group.attention(rank).size(), 2);
    Floats& own = values[static_cast<size_t>(rank)];
    own = {static_cast<float>(rank)};
    group.attention(rank).all_reduce(view_of(own, {1}), {});
  });
  EXPECT_EQ(values, (std::vector<Floats>{{1}, {1}, {5}, {5}}));
}

TEST(ThreadCommunicatorAbortTest, AWaitingMemberThrows) {
  auto ranks = make_thread_communicators(3, 3);
  std::string message;
  std::thread waiting([&] {
    Floats own(4);
    try {
      ranks[0].world->all_reduce(view_of(own, {4}), {});
    } catch (const DeviceError& error) {
      message = error.what();
    }
  });
  ranks[2].world->abort("the network is gone");
  waiting.join();
  EXPECT_EQ(message, "the network is gone");
}

TEST(ThreadCommunicatorAbortTest, ReachesSubgroupsAndLaterCalls) {
  auto ranks = make_thread_communicators(4, 2);
  ranks[0].attention->abort("first");
  ranks[1].world->abort("second");
  Floats own(2);
  for (auto& rank : ranks) {
    EXPECT_THROW(rank.world->all_reduce(view_of(own, {2}), {}), DeviceError);
    EXPECT_THROW(rank.attention->all_reduce(view_of(own, {2}), {}), DeviceError);
  }
}

}  // namespace
}  // namespace tessera
