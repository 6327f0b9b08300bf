// Sums over two GPUs against the sums of the same floats on the host. Needs two GPUs.
#include "kernels/cuda/peer_sum.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_backend.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kMembers = 2;
constexpr int64_t kMaxElements = 200'000;
/// Behind the elements of a call: must not change.
constexpr int64_t kGuard = 8;
constexpr float kGuardValue = -7.0F;

class PeerSumTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GE(num_cuda_devices(), kMembers) << "this test needs two GPUs";
    for (int member = 0; member < kMembers; ++member) {
      backends_.push_back(create_cuda_backend(member));
      devices_.push_back(&backends_.back()->device());
      buffers_.push_back(devices_.back()->allocate((kMaxElements + kGuard) * 4));
    }
    sum_ = PeerSum::create(devices_, kMaxElements);
    ASSERT_NE(sum_, nullptr) << "the GPUs do not reach each other's memory";
  }
  void TearDown() override {
    if (HasFailure()) {
      ADD_FAILURE() << "random seed of this test: " << seed_;
    }
  }

  /// A value for each element of each member, and the guard.
  std::vector<std::vector<float>> random_parts(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<std::vector<float>> parts(kMembers);
    for (auto& part : parts) {
      part.resize(static_cast<size_t>(count + kGuard), kGuardValue);
      std::generate(part.begin(), part.begin() + count, [&] { return normal(random_); });
    }
    return parts;
  }
  float* values(int member) { return static_cast<float*>(buffers_[member].data()); }
  void on_each(const std::function<void(int)>& work) {
    std::vector<std::jthread> threads;
    for (int member = 0; member < kMembers; ++member) {
      threads.emplace_back([&work, member] { work(member); });
    }
  }

  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<Device*> devices_;
  std::vector<DeviceBuffer> buffers_;
  std::unique_ptr<PeerSum> sum_;
};

TEST_F(PeerSumTest, AddsAnyNumberOfElements) {
  // Around a thread's four elements, a block's and all blocks' together; a second time after the
  // others, so that no call finds what it expects from the one before.
  for (const int64_t count :
       {1, 2, 3, 4, 5, 2047, 2048, 2049, 131'071, 131'077, 199'999, 3, 2048}) {
    auto parts = random_parts(count);
    std::vector<float> expected = parts[0];
    for (int64_t i = 0; i < count; ++i) {
      expected[static_cast<size_t>(i)] += parts[1][static_cast<size_t>(i)];
    }
    on_each([&](int member) {
      auto& own = parts[static_cast<size_t>(member)];
      Device& device = *devices_[static_cast<size_t>(member)];
      const auto bytes = static_cast<int64_t>(own.size() * sizeof(float));
      device.copy_from_host(values(member), own.data(), bytes, {});
      sum_->run(member, values(member), count, {});
      device.copy_to_host(own.data(), values(member), bytes, {});
      device.synchronize_blocking({});
    });
    EXPECT_EQ(parts[0], expected) << count << " elements";
    EXPECT_EQ(parts[1], expected) << count << " elements";
  }
}

TEST_F(PeerSumTest, ManyCallsInARowNeverMixUp) {
  // x doubles with every call, of ever other sizes, while one member is ahead of the other.
  constexpr int kCalls = 60;  // 2^60 is a float
  constexpr int64_t kCount = 100'000;
  std::vector<std::vector<float>> values_after(kMembers);
  on_each([&](int member) {
    Device& device = *devices_[static_cast<size_t>(member)];
    std::vector<float> ones(static_cast<size_t>(kCount), 1.0F);
    device.copy_from_host(values(member), ones.data(), kCount * 4, {});
    for (int call = 0; call < kCalls; ++call) {
      sum_->run(member, values(member), kCount, {});
      sum_->run(member, values(member) + kCount, 1 + 997 * call, {});
      if (member == call % kMembers) {
        device.synchronize_blocking({});
      }
    }
    device.copy_to_host(ones.data(), values(member), kCount * 4, {});
    device.synchronize_blocking({});
    values_after[static_cast<size_t>(member)] = ones;
  });
  const std::vector<float> expected(static_cast<size_t>(kCount), std::ldexp(1.0F, kCalls));
  EXPECT_EQ(values_after[0], expected);
  EXPECT_EQ(values_after[1], expected);
}

TEST_F(PeerSumTest, AnAbortEndsWhoWaits) {
  sum_->run(0, values(0), 100, {});  // nobody else comes
  sum_->abort();
  EXPECT_NO_THROW(devices_[0]->synchronize_blocking({}));
}

}  // namespace
}  // namespace tessera::kernels::cuda
