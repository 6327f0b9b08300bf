// Sums over two GPUs against the sums of the same floats on the host. Needs two GPUs.
#include "kernels/cuda/peer_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
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
  std::vector<float> random_values(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    std::generate(values.begin(), values.end(), [&] { return normal(random_); });
    return values;
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

/// What a member's pass with the norm gets and gives.
struct NormCase {
  int64_t rows = 0;
  int64_t width = 0;
  DType out_dtype = DType::kFloat32;
};

class PeerSumNormTest : public PeerSumTest, public ::testing::WithParamInterface<NormCase> {
 protected:
  void SetUp() override {
    PeerSumTest::SetUp();
    if (!HasFatalFailure()) {
      sum_ = PeerSum::create(devices_, int64_t{1} << 20);
    }
  }
};

struct MemberTensors {
  MemberTensors(Device& on, const NormCase& of_case, const std::vector<float>& weights)
      : shape(of_case),
        device(on),
        add(device.allocate(shape.rows * shape.width * 4)),
        hidden(device.allocate(shape.rows * shape.width * 4)),
        weight(device.allocate(shape.width * 4)),
        out(device.allocate(shape.rows * shape.width * 4)) {
    device.copy_from_host(weight.data(), weights.data(), shape.width * 4, {});
  }
  [[nodiscard]] RmsNormParams params() const {
    return {.x = {hidden.data(), DType::kFloat32, {shape.rows, shape.width}},
            .add = TensorView{add.data(), DType::kFloat32, {shape.rows, shape.width}},
            .weight = TensorView{weight.data(), DType::kFloat32, {shape.width}},
            .epsilon = 1e-5F,
            .out = {out.data(), shape.out_dtype, {shape.rows, shape.width}}};
  }
  /// [rows, width] of the output, as float32.
  [[nodiscard]] std::vector<float> read_out() const {
    const auto count = static_cast<size_t>(shape.rows * shape.width);
    std::vector<char> bytes(count * static_cast<size_t>(dtype_bytes(shape.out_dtype)));
    device.copy_to_host(bytes.data(), out.data(), static_cast<int64_t>(bytes.size()), {});
    device.synchronize_blocking({});
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
      if (shape.out_dtype == DType::kFloat32) {
        std::memcpy(&values[i], bytes.data() + i * 4, 4);
      } else {
        uint16_t half = 0;
        std::memcpy(&half, bytes.data() + i * 2, 2);
        values[i] = std::bit_cast<float>(uint32_t{half} << 16);
      }
    }
    return values;
  }
  NormCase shape;
  Device& device;
  DeviceBuffer add, hidden, weight, out;
};

TEST_P(PeerSumNormTest, IsTheSumThenTheNorm) {
  const NormCase shape = GetParam();
  const int64_t count = shape.rows * shape.width;
  const std::vector<float> weights = random_values(shape.width);
  std::vector<MemberTensors> members;
  for (Device* device : devices_) {
    members.emplace_back(*device, shape, weights);
  }
  for (int call = 0; call < 3; ++call) {  // both slots of the inboxes, and the first again
    const std::vector<std::vector<float>> parts = {random_values(count), random_values(count)};
    const std::vector<float> residual = random_values(count);
    std::vector<std::vector<float>> hidden(kMembers, residual);
    on_each([&](int member) {
      const MemberTensors& own = members[static_cast<size_t>(member)];
      auto& values = hidden[static_cast<size_t>(member)];
      const std::vector<float> poison(static_cast<size_t>(count), NAN);
      own.device.copy_from_host(
          own.add.data(), parts[static_cast<size_t>(member)].data(), count * 4, {});
      own.device.copy_from_host(own.hidden.data(), values.data(), count * 4, {});
      own.device.copy_from_host(own.out.data(), poison.data(), count * 4, {});
      EXPECT_TRUE(sum_->run_norm(member, own.params(), {}));
      own.device.copy_to_host(values.data(), own.hidden.data(), count * 4, {});
      own.device.synchronize_blocking({});
    });
    // A rounding of bfloat16, else of the sums in float32: at most 14 additions a thread and 5 + 16
    // of the block before a square root, which halves their errors.
    const double tolerance = shape.out_dtype == DType::kFloat32 ? 2e-6 : 1.0 / 256;
    const std::vector<std::vector<float>> outs = {members[0].read_out(), members[1].read_out()};
    EXPECT_EQ(outs[0], outs[1]) << "the members' bits differ";
    EXPECT_EQ(hidden[0], hidden[1]);
    for (int64_t row = 0; row < shape.rows; ++row) {
      std::vector<double> sums;
      double squares = 0.0;
      for (int64_t i = row * shape.width; i < (row + 1) * shape.width; ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_EQ(hidden[0][at], residual[at] + (parts[0][at] + parts[1][at])) << "element " << i;
        sums.push_back(hidden[0][at]);
        squares += sums.back() * sums.back();
      }
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(shape.width) + 1e-5);
      for (int64_t c = 0; c < shape.width; ++c) {
        const double expected =
            sums[static_cast<size_t>(c)] * factor * weights[static_cast<size_t>(c)];
        const float actual = outs[0][static_cast<size_t>(row * shape.width + c)];
        ASSERT_NEAR(actual, expected, tolerance * std::abs(expected) + 1e-30)
            << "row " << row << ", column " << c;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         PeerSumNormTest,
                         ::testing::Values(NormCase{1, 2, DType::kFloat32},
                                           NormCase{1, 2048, DType::kBFloat16},
                                           NormCase{3, 7168, DType::kBFloat16},
                                           NormCase{64, 2048, DType::kFloat32},
                                           NormCase{128, 8192, DType::kBFloat16},
                                           NormCase{129, 2050, DType::kFloat32},
                                           NormCase{500, 2048, DType::kBFloat16}));

TEST_F(PeerSumTest, ScattersTheSums) {
  const auto sum = PeerSum::create(devices_, int64_t{1} << 20);
  struct Shape {
    int64_t rows;
    int64_t width;
  };
  for (const Shape& shape :
       {Shape{1, 2}, Shape{3, 384}, Shape{7, 2050}, Shape{128, 8192}, Shape{5, 6}}) {
    const int64_t count = shape.rows * shape.width;
    const std::vector<std::vector<float>> parts = {random_values(kMembers * count),
                                                   random_values(kMembers * count)};
    std::vector<std::vector<float>> outs(kMembers);
    on_each([&](int member) {
      Device& device = *devices_[static_cast<size_t>(member)];
      const auto& own = parts[static_cast<size_t>(member)];
      auto& out = outs[static_cast<size_t>(member)];
      out.assign(static_cast<size_t>(count + kGuard), kGuardValue);
      const DeviceBuffer partial = device.allocate(kMembers * count * 4);
      const DeviceBuffer result = device.allocate((count + kGuard) * 4);
      device.copy_from_host(partial.data(), own.data(), kMembers * count * 4, {});
      device.copy_from_host(result.data(), out.data(), (count + kGuard) * 4, {});
      EXPECT_TRUE(sum->run_scatter(member,
                                   {static_cast<const float*>(partial.data()),
                                    static_cast<float*>(result.data()),
                                    shape.rows,
                                    shape.width},
                                   {}));
      device.copy_to_host(out.data(), result.data(), (count + kGuard) * 4, {});
      device.synchronize_blocking({});
    });
    for (int64_t member = 0; member < kMembers; ++member) {
      std::vector<float> expected(static_cast<size_t>(count + kGuard), kGuardValue);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = i / shape.width;
        const auto at =
            static_cast<size_t>((row * kMembers + member) * shape.width + i % shape.width);
        expected[static_cast<size_t>(i)] = parts[0][at] + parts[1][at];
      }
      EXPECT_EQ(outs[static_cast<size_t>(member)], expected)
          << shape.rows << " x " << shape.width << ", member " << member;
    }
  }
  EXPECT_FALSE(sum->run_scatter(0, {nullptr, nullptr, 129, 8192}, {}));
  EXPECT_FALSE(sum->run_scatter(0, {nullptr, nullptr, 1, 3}, {}));
}

TEST_F(PeerSumTest, RefusesTheNormOfWhatDoesNotFitOnePass) {
  const auto sum = PeerSum::create(devices_, int64_t{1} << 20);
  for (const NormCase& shape : {NormCase{1, 8194}, NormCase{1, 3}, NormCase{513, 2048}}) {
    const MemberTensors own(*devices_[0], shape, random_values(shape.width));
    EXPECT_FALSE(sum->run_norm(0, own.params(), {})) << shape.rows << " x " << shape.width;
  }
}

TEST_F(PeerSumTest, AnAbortEndsWhoWaits) {
  sum_->run(0, values(0), 100, {});  // nobody else comes
  sum_->abort();
  EXPECT_NO_THROW(devices_[0]->synchronize_blocking({}));
}

}  // namespace
}  // namespace tessera::kernels::cuda
