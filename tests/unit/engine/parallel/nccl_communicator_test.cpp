// Collectives over NCCL against those of threads, which the tests beside this one compare with
// sums written out; NCCL alone, and with sums by the kernels of kernels/cuda/peer_sum.h where it
// finds them faster. Needs two GPUs.
#include "engine/parallel/nccl_communicator.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/parallel/rank_group.h"
#include "kernels/core/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_sum.h"

namespace tessera {
namespace {

using kernels::Backend;
using kernels::DeviceBuffer;
using kernels::DType;
using kernels::RmsNormParams;
using kernels::StreamView;
using kernels::TensorView;
using kernels::cuda::PeerSum;
using Floats = std::vector<float>;

constexpr int kRanks = 2;
constexpr int64_t kStagingBytes = int64_t{8} << 20;
constexpr int64_t kMaxPeerSum = int64_t{1} << 18;
/// Two terms have one sum, whatever the order.
constexpr float kTolerance = 0.0F;

/// `num_calls` counts what is used of it.
SmallSum small_sum_of(const std::shared_ptr<PeerSum>& peers, std::atomic<int>& num_calls) {
  return {.run =
              [peers, &num_calls](int rank, float* x, int64_t count, StreamView stream) {
                ++num_calls;
                peers->run(rank, x, count, stream);
              },
          .run_norm =
              [peers, &num_calls](int rank, const RmsNormParams& norm, StreamView stream) {
                ++num_calls;
                return peers->run_norm(rank, norm, stream);
              },
          .run_scatter =
              [peers, &num_calls](
                  int rank, const float* partial, const TensorView& out, StreamView stream) {
                ++num_calls;
                return peers->run_scatter(rank, partial, out, stream);
              },
          .abort = [peers] { peers->abort(); },
          .max_elements = peers->max_elements()};
}

/// Whether there are sums by peer memory.
class NcclCommunicatorTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_GE(kernels::cuda::num_cuda_devices(), kRanks) << "this test needs two GPUs";
    NcclOptions options;
    options.staging_bytes = kStagingBytes;
    for (int rank = 0; rank < kRanks; ++rank) {
      backends_.push_back(kernels::cuda::create_cuda_backend(rank));
      options.devices.push_back(rank);
      options.memory.push_back(&backends_.back()->device());
    }
    options.native_stream = [devices = options.memory](int rank, StreamView stream) {
      return kernels::cuda::native_stream(*devices[static_cast<size_t>(rank)], stream);
    };
    if (GetParam()) {
      const std::shared_ptr<PeerSum> peers = PeerSum::create(options.memory, kMaxPeerSum);
      ASSERT_NE(peers, nullptr) << "the GPUs do not reach each other's memory";
      options.small_sum = small_sum_of(peers, num_peer_calls_);
    }
    auto communicators = make_nccl_communicators(options, kRanks);
    ASSERT_TRUE(communicators.is_ok()) << communicators.status().to_string();
    num_peer_calls_ = 0;  // those that were to find out which way is faster
    gpus_ = std::make_unique<RankGroup>(std::move(communicators).value());
    threads_ = std::make_unique<RankGroup>(make_thread_communicators(kRanks, kRanks));
    SCOPED_TRACE("seed " + std::to_string(seed_));
  }

  [[nodiscard]] Floats random_floats(int64_t count) {
    std::normal_distribution<float> normal;
    Floats values(static_cast<size_t>(count));
    for (float& value : values) {
      value = normal(random_);
    }
    return values;
  }

  /// A collective on `in` that writes `out`; the same on host and device.
  using Collective = std::function<void(Communicator&, float* in, float* out)>;

  /// Runs it on both with the same inputs and compares all outputs. `out_counts`: by rank, 0: none.
  void check(int64_t in_count,
             const std::vector<int64_t>& out_counts,
             const Collective& collective,
             float tolerance = kTolerance) {
    std::vector<Floats> in;
    std::vector<Floats> expected;
    std::vector<Floats> actual;
    for (const int64_t count : out_counts) {
      in.push_back(random_floats(in_count));
      expected.emplace_back(static_cast<size_t>(count), -1.0F);
      actual.emplace_back(static_cast<size_t>(count), -2.0F);
    }
    threads_->run_blocking([&](int rank) {
      Floats own = in[static_cast<size_t>(rank)];
      Floats& out = expected[static_cast<size_t>(rank)];
      collective(threads_->world(rank), own.data(), out.empty() ? nullptr : out.data());
    });
    gpus_->run_blocking([&](int rank) {
      kernels::Device& device = backends_[static_cast<size_t>(rank)]->device();
      const auto bytes = in_count * static_cast<int64_t>(sizeof(float));
      const DeviceBuffer own = device.allocate(bytes);
      device.copy_from_host(own.data(), in[static_cast<size_t>(rank)].data(), bytes, {});
      Floats& out = actual[static_cast<size_t>(rank)];
      const auto out_bytes = static_cast<int64_t>(out.size() * sizeof(float));
      const DeviceBuffer result = device.allocate(std::max<int64_t>(out_bytes, 4));
      collective(gpus_->world(rank),
                 static_cast<float*>(own.data()),
                 out.empty() ? nullptr : static_cast<float*>(result.data()));
      if (!out.empty()) {
        device.copy_to_host(out.data(), result.data(), out_bytes, {});
      }
      device.synchronize_blocking({});
    });
    for (size_t rank = 0; rank < expected.size(); ++rank) {
      for (size_t i = 0; i < expected[rank].size(); ++i) {
        ASSERT_NEAR(actual[rank][i], expected[rank][i], tolerance) << "rank " << rank << ", " << i;
      }
    }
  }

  /// In what was called since SetUp().
  void expect_peer_sums_where_there_are_some() { EXPECT_EQ(num_peer_calls_ > 0, GetParam()); }

  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::atomic<int> num_peer_calls_{0};
  std::vector<std::unique_ptr<Backend>> backends_;
  std::unique_ptr<RankGroup> gpus_;
  std::unique_ptr<RankGroup> threads_;
};

TEST_P(NcclCommunicatorTest, ReduceScatterGivesEachRankItsHeads) {
  for (const int64_t rows : {1, 3, 64}) {
    constexpr int64_t kHeads = 5;
    constexpr int64_t kWidth = 24;
    const int64_t own = rows * kHeads * kWidth;
    check(own * kRanks, {own, own}, [&](Communicator& group, float* in, float* out) {
      const TensorView heads(out, DType::kFloat32, {rows, kHeads, kWidth});
      group.reduce_scatter_heads({in, DType::kFloat32, {rows, kHeads * kRanks, kWidth}},
                                 heads,
                                 heads,
                                 backends_[static_cast<size_t>(group.rank())]->ops(),
                                 {});
    });
  }
  expect_peer_sums_where_there_are_some();
}

TEST_P(NcclCommunicatorTest, ReduceScatterRoundsToTheTypeOfItsResult) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kHeads = 3;
  constexpr int64_t kWidth = 8;
  constexpr int64_t kOwn = kRows * kHeads * kWidth;
  const auto cpu = kernels::cpu::create_cpu_backend(1);
  check(kOwn * kRanks, {kOwn, kOwn}, [&](Communicator& group, float* in, float* out) {
    const bool is_gpu = &group == &gpus_->world(group.rank());
    kernels::Backend& backend = is_gpu ? *backends_[static_cast<size_t>(group.rank())] : *cpu;
    const DeviceBuffer sum = backend.device().allocate(kOwn * 4);
    const DeviceBuffer result = backend.device().allocate(kOwn * 2);
    group.reduce_scatter_heads({in, DType::kFloat32, {kRows, kHeads * kRanks, kWidth}},
                               {sum.data(), DType::kFloat32, {kRows, kHeads, kWidth}},
                               {result.data(), DType::kBFloat16, {kRows, kHeads, kWidth}},
                               backend.ops(),
                               {});
    backend.ops().cast({.x = TensorView(result.data(), DType::kBFloat16, {kRows, kHeads * kWidth}),
                        .out = {out, DType::kFloat32, {kRows, kHeads * kWidth}}},
                       {});
    backend.device().synchronize_blocking({});
  });
  expect_peer_sums_where_there_are_some();
}

TEST_P(NcclCommunicatorTest, AllGatherPutsMembersBehindEachOther) {
  check(77, {154, 154}, [&](Communicator& group, float* in, float* out) {
    group.all_gather(
        {in, DType::kFloat32, {77}}, TensorView{out, DType::kFloat32, {kRanks, 77}}, {});
  });
}

TEST_P(NcclCommunicatorTest, ColumnsComeTogetherOnTheFirst) {
  for (const int64_t rows : {1, 7}) {
    constexpr int64_t kColumns = 33;
    check(rows * kColumns,
          {rows * kColumns * kRanks, 0},
          [&](Communicator& group, float* in, float* out) {
            group.all_gather_columns({in, DType::kFloat32, {rows, kColumns}},
                                     TensorView{out, DType::kFloat32, {rows, kColumns * kRanks}},
                                     {});
          });
  }
}

TEST_P(NcclCommunicatorTest, AllReduceGivesEveryRankTheSum) {
  // In place: the operand is the result, which an all-gather of nothing else shows. The last one
  // is NCCL's in any case.
  for (const int64_t count : {int64_t{1000}, kMaxPeerSum + 1}) {
    check(count, {count * kRanks, count * kRanks}, [&](Communicator& group, float* in, float* out) {
      group.all_reduce(TensorView{in, DType::kFloat32, {count}}, {});
      group.all_gather(
          {in, DType::kFloat32, {count}}, TensorView{out, DType::kFloat32, {kRanks, count}}, {});
    });
  }
  expect_peer_sums_where_there_are_some();
}

TEST_P(NcclCommunicatorTest, AllReduceNormAddsTheSumAndNormalises) {
  constexpr int64_t kRows = 6;
  constexpr int64_t kWidth = 1024;
  constexpr int64_t kCount = kRows * kWidth;
  constexpr float kEpsilon = 1e-6F;
  const Floats hidden = random_floats(kCount);
  const Floats weight = random_floats(kWidth);
  const auto cpu = kernels::cpu::create_cpu_backend(1);
  // Out: the sums that join `hidden`, then the norm. Sums of 1,024 squares in another order, and
  // values of up to some 30.
  constexpr float kNormTolerance = 1e-4F;
  check(
      kCount,
      {2 * kCount, 2 * kCount},
      [&](Communicator& group, float* in, float* out) {
        const bool is_gpu = &group == &gpus_->world(group.rank());
        kernels::Backend& backend = is_gpu ? *backends_[static_cast<size_t>(group.rank())] : *cpu;
        kernels::Device& device = backend.device();
        const DeviceBuffer own_weight = device.allocate(kWidth * 4);
        device.copy_from_host(own_weight.data(), weight.data(), kWidth * 4, {});
        device.copy_from_host(out, hidden.data(), kCount * 4, {});
        const TensorView add(in, DType::kFloat32, {kRows, kWidth});
        group.all_reduce_norm(add,
                              {.x = {out, DType::kFloat32, {kRows, kWidth}},
                               .add = add,
                               .weight = {own_weight.data(), DType::kFloat32, {kWidth}},
                               .epsilon = kEpsilon,
                               .out = {out + kCount, DType::kFloat32, {kRows, kWidth}}},
                              backend.ops(),
                              {});
        device.synchronize_blocking({});
      },
      kNormTolerance);
  expect_peer_sums_where_there_are_some();
}

TEST_P(NcclCommunicatorTest, AnAbortEndsWhoWaits) {
  EXPECT_THROW(gpus_->run_blocking([&](int rank) {
    if (rank == 1) {
      throw DeviceError("rank 1 fails");
    }
    kernels::Device& device = backends_[0]->device();
    const DeviceBuffer own = device.allocate(4096);
    gpus_->world(rank).all_reduce(TensorView{own.data(), DType::kFloat32, {1024}}, {});
    device.synchronize_blocking({});  // ends although rank 1 never comes
  }),
               DeviceError);
}

TEST_P(NcclCommunicatorTest, AnAbortEndsWhoWaitsInARecordedStep) {
  std::vector<DeviceBuffer> operands;
  std::vector<std::unique_ptr<kernels::DeviceGraph>> steps(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    operands.push_back(backends_[static_cast<size_t>(rank)]->device().allocate(4096));
  }
  const auto sum = [&](int rank) {
    float* own = static_cast<float*>(operands[static_cast<size_t>(rank)].data());
    gpus_->world(rank).all_reduce(TensorView{own, DType::kFloat32, {1024}}, {});
  };
  gpus_->run_blocking([&](int rank) {
    kernels::Device& device = backends_[static_cast<size_t>(rank)]->device();
    sum(rank);
    device.synchronize_blocking({});
    steps[static_cast<size_t>(rank)] = device.record({}, [&] { sum(rank); });
  });
  // The recorded steps live on: NCCL would wait for their end.
  EXPECT_THROW(gpus_->run_blocking([&](int rank) {
    if (rank == 1) {
      throw DeviceError("rank 1 fails");
    }
    steps[0]->launch({});
    backends_[0]->device().synchronize_blocking({});
  }),
               DeviceError);
  EXPECT_THROW(gpus_->run_blocking(sum), DeviceError) << "for good";
}

INSTANTIATE_TEST_SUITE_P(Ways,
                         NcclCommunicatorTest,
                         ::testing::Values(false, true),
                         [](const auto& way) {
                           return std::string(way.param ? "PeerSums" : "NcclAlone");
                         });

TEST(NcclLibraryTest, ALibraryThatIsNotThereIsNamed) {
  NcclOptions options;
  options.library = "/nonexistent/libnccl.so";
  const auto backend = kernels::cuda::create_cuda_backend(0);
  options.devices = {0, 0};
  options.memory = {&backend->device(), &backend->device()};
  const auto communicators = make_nccl_communicators(options, 2);
  EXPECT_EQ(communicators.status().code(), StatusCode::kNotFound);
  EXPECT_NE(communicators.status().message().find("/nonexistent/libnccl.so"), std::string::npos);
}

}  // namespace
}  // namespace tessera
