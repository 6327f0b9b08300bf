// Sums over all GPUs there are, up to PeerSum's limit, against the sums of the same floats on the
// host. Needs two GPUs.
#include "kernels/cuda/peer_sum.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_backend.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 21;
/// Behind the elements of a call: must not change.
constexpr int64_t kGuard = 8;
constexpr float kGuardValue = -7.0F;

using Floats = std::vector<float>;

/// Of element `i` of each of the parts, in their order.
float sum_of(const std::vector<Floats>& parts, int64_t i) {
  float sum = 0.0F;
  for (const Floats& part : parts) {
    sum += part[static_cast<size_t>(i)];
  }
  return sum;
}

class PeerSumTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GE(num_cuda_devices(), 2) << "this test needs two GPUs";
    num_members_ = std::min(num_cuda_devices(), PeerSum::kMaxMembers);
    for (int member = 0; member < num_members_; ++member) {
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

  /// From -1 to 1; many of them are quick to draw.
  Floats random_values(int64_t count) {
    Floats values(static_cast<size_t>(count));
    std::generate(values.begin(), values.end(), [&] {
      return static_cast<float>(static_cast<int32_t>(random_())) * 0x1p-31F;
    });
    return values;
  }
  /// `count` values of each member.
  std::vector<Floats> random_parts(int64_t count) {
    std::vector<Floats> parts;
    for (int member = 0; member < num_members_; ++member) {
      parts.push_back(random_values(count));
    }
    return parts;
  }
  float* values(int member) { return static_cast<float*>(buffers_[member].data()); }
  void on_each(const std::function<void(int)>& work) {
    std::vector<std::jthread> threads;
    for (int member = 0; member < num_members_; ++member) {
      threads.emplace_back([&work, member] { work(member); });
    }
  }

  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  int num_members_ = 0;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<Device*> devices_;
  std::vector<DeviceBuffer> buffers_;
  std::unique_ptr<PeerSum> sum_;
};

TEST_F(PeerSumTest, AddsAnyNumberOfElements) {
  // Around a thread's elements, a block's, a batch of them, and all blocks' together; a second time
  // after the others, so that no call finds what it expects from the one before.
  constexpr int64_t kCounts[] = {1,
                                 2,
                                 3,
                                 4,
                                 5,
                                 2047,
                                 2048,
                                 2049,
                                 131'071,
                                 131'077,
                                 262'144,
                                 262'145,
                                 699'999,
                                 1'048'575,
                                 1'048'576,
                                 1'048'581,
                                 3,
                                 kMaxElements,
                                 2048};
  for (const int64_t count : kCounts) {
    std::vector<Floats> parts = random_parts(count);
    Floats expected(static_cast<size_t>(count + kGuard), kGuardValue);
    for (int64_t i = 0; i < count; ++i) {
      expected[static_cast<size_t>(i)] = sum_of(parts, i);
    }
    for (Floats& part : parts) {
      part.resize(expected.size(), kGuardValue);
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
    for (const Floats& part : parts) {
      EXPECT_EQ(part, expected) << count << " elements";
    }
  }
}

/// What a member's pass with the norm gets and gives.
struct NormCase {
  int64_t rows = 0;
  int64_t width = 0;
  DType out_dtype = DType::kFloat32;
};

class PeerSumNormTest : public PeerSumTest, public ::testing::WithParamInterface<NormCase> {};

struct MemberTensors {
  MemberTensors(Device& on, const NormCase& of_case, const Floats& weights)
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
  [[nodiscard]] Floats read_out() const {
    const auto count = static_cast<size_t>(shape.rows * shape.width);
    std::vector<char> bytes(count * static_cast<size_t>(dtype_bytes(shape.out_dtype)));
    device.copy_to_host(bytes.data(), out.data(), static_cast<int64_t>(bytes.size()), {});
    device.synchronize_blocking({});
    Floats values(count);
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
  const Floats weights = random_values(shape.width);
  std::vector<MemberTensors> members;
  for (Device* device : devices_) {
    members.emplace_back(*device, shape, weights);
  }
  for (int call = 0; call < 3; ++call) {  // both slots of the inboxes, and the first again
    const std::vector<Floats> parts = random_parts(count);
    const Floats residual = random_values(count);
    std::vector<Floats> hidden(parts.size(), residual);
    on_each([&](int member) {
      const MemberTensors& own = members[static_cast<size_t>(member)];
      auto& values = hidden[static_cast<size_t>(member)];
      const Floats poison(static_cast<size_t>(count), NAN);
      own.device.copy_from_host(
          own.add.data(), parts[static_cast<size_t>(member)].data(), count * 4, {});
      own.device.copy_from_host(own.hidden.data(), values.data(), count * 4, {});
      own.device.copy_from_host(own.out.data(), poison.data(), count * 4, {});
      EXPECT_TRUE(sum_->run_norm(member, own.params(), {}));
      own.device.copy_to_host(values.data(), own.hidden.data(), count * 4, {});
      own.device.synchronize_blocking({});
    });
    // A rounding of bfloat16, else of the sums in float32: at most 16 additions a thread and 5 + 16
    // of the block before a square root, which halves their errors.
    const double tolerance = shape.out_dtype == DType::kFloat32 ? 2e-6 : 1.0 / 256;
    const Floats out = members[0].read_out();
    for (size_t member = 1; member < members.size(); ++member) {
      EXPECT_EQ(members[member].read_out(), out) << "member " << member << " has other bits";
      EXPECT_EQ(hidden[member], hidden[0]) << "member " << member;
    }
    for (int64_t row = 0; row < shape.rows; ++row) {
      std::vector<double> sums;
      double squares = 0.0;
      for (int64_t i = row * shape.width; i < (row + 1) * shape.width; ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_EQ(hidden[0][at], residual[at] + sum_of(parts, i)) << "element " << i;
        sums.push_back(hidden[0][at]);
        squares += sums.back() * sums.back();
      }
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(shape.width) + 1e-5);
      for (int64_t c = 0; c < shape.width; ++c) {
        const double expected =
            sums[static_cast<size_t>(c)] * factor * weights[static_cast<size_t>(c)];
        const float actual = out[static_cast<size_t>(row * shape.width + c)];
        ASSERT_NEAR(actual, expected, tolerance * std::abs(expected) + 1e-30)
            << "row " << row << ", column " << c;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         PeerSumNormTest,
                         ::testing::Values(NormCase{1, 4, DType::kFloat32},
                                           NormCase{1, 2048, DType::kBFloat16},
                                           NormCase{3, 7168, DType::kBFloat16},
                                           NormCase{64, 2048, DType::kFloat32},
                                           NormCase{64, 7168, DType::kBFloat16},
                                           NormCase{128, 8192, DType::kBFloat16},
                                           NormCase{129, 2052, DType::kFloat32},
                                           NormCase{256, 7168, DType::kBFloat16},
                                           NormCase{500, 2048, DType::kBFloat16},
                                           NormCase{1100, 512, DType::kFloat32}));

struct ScatterCase {
  int64_t rows = 0;
  int64_t width = 0;
  DType out_dtype = DType::kFloat32;
};

class PeerScatterTest : public PeerSumTest, public ::testing::WithParamInterface<ScatterCase> {
 protected:
  /// What a member's call with `own` [rows, members, width] left in `out`.
  void scatter(int member, const Floats& own, Floats& out) {
    const ScatterCase& shape = GetParam();
    Device& device = *devices_[static_cast<size_t>(member)];
    const int64_t count = shape.rows * shape.width;
    const bool is_float = shape.out_dtype == DType::kFloat32;
    Floats poison(static_cast<size_t>(count + kGuard), kGuardValue);
    const auto bytes = static_cast<int64_t>(poison.size() * sizeof(float));
    const DeviceBuffer partial = device.allocate(num_members_ * count * 4);
    const DeviceBuffer result = device.allocate(bytes);
    device.copy_from_host(partial.data(), own.data(), num_members_ * count * 4, {});
    device.copy_from_host(result.data(), poison.data(), bytes, {});
    EXPECT_TRUE(sum_->run_scatter(member,
                                  static_cast<const float*>(partial.data()),
                                  {result.data(), shape.out_dtype, {shape.rows, shape.width}},
                                  {}));
    device.copy_to_host(poison.data(), result.data(), bytes, {});
    device.synchronize_blocking({});
    if (is_float) {
      out = poison;
      return;
    }
    // Pairs of bfloat16, as far as the result goes, then the guard.
    out.clear();
    for (int64_t i = 0; i < count; ++i) {
      uint16_t half = 0;
      std::memcpy(&half, reinterpret_cast<const char*>(poison.data()) + i * 2, 2);
      out.push_back(std::bit_cast<float>(uint32_t{half} << 16));
    }
    out.insert(
        out.end(), poison.begin() + (count + 1) / 2, poison.begin() + (count + 1) / 2 + kGuard);
  }
};

/// The nearest bfloat16, of two the even one.
float rounded(float value, DType dtype) {
  if (dtype == DType::kFloat32) {
    return value;
  }
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U);
}

TEST_P(PeerScatterTest, EachGetsItsPartOfTheSums) {
  const ScatterCase shape = GetParam();
  const int64_t count = shape.rows * shape.width;
  for (int call = 0; call < 3; ++call) {  // both slots of the inboxes, and the first again
    const std::vector<Floats> parts = random_parts(num_members_ * count);
    std::vector<Floats> outs(parts.size());
    on_each([&](int member) {
      const auto at = static_cast<size_t>(member);
      scatter(member, parts[at], outs[at]);
    });
    for (int64_t member = 0; member < num_members_; ++member) {
      Floats expected(static_cast<size_t>(count + kGuard), kGuardValue);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = i / shape.width;
        const int64_t at = (row * num_members_ + member) * shape.width + i % shape.width;
        expected[static_cast<size_t>(i)] = rounded(sum_of(parts, at), shape.out_dtype);
      }
      EXPECT_EQ(outs[static_cast<size_t>(member)], expected) << "member " << member;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         PeerScatterTest,
                         ::testing::Values(ScatterCase{1, 4, DType::kFloat32},
                                           ScatterCase{3, 384, DType::kBFloat16},
                                           ScatterCase{7, 2052, DType::kFloat32},
                                           ScatterCase{5, 12, DType::kBFloat16},
                                           ScatterCase{131, 2052, DType::kFloat32},
                                           ScatterCase{65, 8192, DType::kBFloat16},
                                           ScatterCase{128, 8192, DType::kFloat32},
                                           ScatterCase{129, 8192, DType::kFloat32},
                                           ScatterCase{256, 8192, DType::kBFloat16}));

TEST_F(PeerSumTest, RefusesToScatterWhatDoesNotFit) {
  float x = 0.0F;
  const auto sum = PeerSum::create(devices_, int64_t{1} << 20);
  EXPECT_FALSE(sum->run_scatter(0, &x, {&x, DType::kFloat32, {129, 8192}}, {}));
  EXPECT_FALSE(sum->run_scatter(0, &x, {&x, DType::kFloat32, {1, 6}}, {}));
}

TEST_F(PeerSumTest, RefusesTheNormOfWhatDoesNotFitOnePass) {
  const auto sum = PeerSum::create(devices_, int64_t{1} << 20);
  for (const NormCase& shape : {NormCase{1, 8196}, NormCase{1, 6}, NormCase{513, 2048}}) {
    const MemberTensors own(*devices_[0], shape, random_values(shape.width));
    EXPECT_FALSE(sum->run_norm(0, own.params(), {})) << shape.rows << " x " << shape.width;
  }
}

/// Calls of every kind, one after the other, as a member makes them and as the host does: x, in two
/// batches a block, and y, of ever other sizes, are summed up; `raw` is scattered, and added to
/// `hidden` with a norm. Every other cycle has one call more, so that each kind comes in both slots
/// of the inboxes, whatever the number of blocks of the others.
class PeerSumMixTest : public PeerSumTest {
 protected:
  static constexpr int kCycles = 12;
  static constexpr int64_t kRows = 150;
  static constexpr int64_t kWidth = 7332;
  static constexpr int64_t kCount = kRows * kWidth;

  struct Values {
    std::vector<Floats> x, raw, y, scattered;  ///< of each cycle
    Floats hidden;
  };

  [[nodiscard]] int64_t part_width() const { return kWidth / num_members_ / 4 * 4; }
  [[nodiscard]] static int64_t num_small(int cycle) { return 1 + int64_t{997} * cycle; }
  [[nodiscard]] static bool has_one_more(int cycle) { return cycle % 2 == 1; }
  [[nodiscard]] Values random_start() {
    Values values;
    for (int cycle = 0; cycle < kCycles; ++cycle) {
      values.x.push_back(random_values(kCount));
      values.raw.push_back(random_values(kCount));
      values.y.push_back(random_values(num_small(cycle)));
    }
    values.hidden = random_values(kCount);
    return values;
  }

  /// Of element `at` of a cycle's tensor.
  static float sum_at(const std::vector<Values>& members,
                      std::vector<Floats> Values::*tensor,
                      int cycle,
                      int64_t at) {
    float sum = 0.0F;
    for (const Values& member : members) {
      sum += (member.*tensor)[static_cast<size_t>(cycle)][static_cast<size_t>(at)];
    }
    return sum;
  }
  static void add_up(std::vector<Values>& members, std::vector<Floats> Values::*tensor, int cycle) {
    const auto index = static_cast<size_t>(cycle);
    for (size_t i = 0; i < (members.front().*tensor)[index].size(); ++i) {
      const float sum = sum_at(members, tensor, cycle, static_cast<int64_t>(i));
      for (Values& member : members) {
        (member.*tensor)[index][i] = sum;
      }
    }
  }
  void cycle_on_host(std::vector<Values>& members, int cycle) const {
    add_up(members, &Values::x, cycle);
    add_up(members, &Values::y, cycle);
    const int64_t width = part_width();
    for (int64_t m = 0; m < num_members_; ++m) {
      Floats& part = members[static_cast<size_t>(m)].scattered.emplace_back();
      for (int64_t i = 0; i < kRows * width; ++i) {
        const int64_t at = (i / width * num_members_ + m) * width + i % width;
        part.push_back(sum_at(members, &Values::raw, cycle, at));
      }
    }
    for (int64_t i = 0; i < kCount; ++i) {
      const float sum = sum_at(members, &Values::raw, cycle, i);
      for (Values& member : members) {
        member.hidden[static_cast<size_t>(i)] += sum;
      }
    }
    if (has_one_more(cycle)) {
      add_up(members, &Values::x, cycle);
    }
  }

  static DeviceBuffer upload(Device& device, const Floats& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    DeviceBuffer buffer = device.allocate(bytes);
    device.copy_from_host(buffer.data(), values.data(), bytes, {});
    return buffer;
  }
  static void download(Device& device, const DeviceBuffer& from, Floats& to) {
    const auto bytes = static_cast<int64_t>(to.size() * sizeof(float));
    device.copy_to_host(to.data(), from.data(), bytes, {});
    device.synchronize_blocking({});
  }
  /// All cycles, without waiting but for the member whose turn it is.
  void run_on_gpu(int m, Values& own) {
    Device& device = *devices_[static_cast<size_t>(m)];
    own.scattered.assign(kCycles, Floats(static_cast<size_t>(kRows * part_width()), NAN));
    std::vector<DeviceBuffer> x, raw, y, scattered;
    for (size_t cycle = 0; cycle < kCycles; ++cycle) {
      x.push_back(upload(device, own.x[cycle]));
      raw.push_back(upload(device, own.raw[cycle]));
      y.push_back(upload(device, own.y[cycle]));
      scattered.push_back(upload(device, own.scattered[cycle]));
    }
    const DeviceBuffer hidden = upload(device, own.hidden);
    const DeviceBuffer weight = upload(device, Floats(kWidth, 1.0F));
    const DeviceBuffer out = device.allocate(kCount * 2);
    for (int cycle = 0; cycle < kCycles; ++cycle) {
      const auto index = static_cast<size_t>(cycle);
      auto* summed = static_cast<float*>(x[index].data());
      auto* given = static_cast<float*>(raw[index].data());
      sum_->run(m, summed, kCount, {});
      sum_->run(m, static_cast<float*>(y[index].data()), num_small(cycle), {});
      EXPECT_TRUE(sum_->run_scatter(
          m, given, {scattered[index].data(), DType::kFloat32, {kRows, part_width()}}, {}));
      EXPECT_TRUE(sum_->run_norm(m,
                                 {.x = {hidden.data(), DType::kFloat32, {kRows, kWidth}},
                                  .add = TensorView{given, DType::kFloat32, {kRows, kWidth}},
                                  .weight = TensorView{weight.data(), DType::kFloat32, {kWidth}},
                                  .epsilon = 1e-5F,
                                  .out = {out.data(), DType::kBFloat16, {kRows, kWidth}}},
                                 {}));
      if (has_one_more(cycle)) {
        sum_->run(m, summed, kCount, {});
      }
      if (m == cycle % num_members_) {
        device.synchronize_blocking({});
      }
    }
    for (size_t cycle = 0; cycle < kCycles; ++cycle) {
      download(device, x[cycle], own.x[cycle]);
      download(device, y[cycle], own.y[cycle]);
      download(device, scattered[cycle], own.scattered[cycle]);
    }
    download(device, hidden, own.hidden);
  }
};

TEST_F(PeerSumMixTest, CallsOfAllKindsInARowNeverMixUp) {
  std::vector<Values> members;
  for (int m = 0; m < num_members_; ++m) {
    members.push_back(random_start());
  }
  std::vector<Values> expected = members;
  for (int cycle = 0; cycle < kCycles; ++cycle) {
    cycle_on_host(expected, cycle);
  }
  on_each([&](int m) { run_on_gpu(m, members[static_cast<size_t>(m)]); });
  for (size_t m = 0; m < members.size(); ++m) {
    EXPECT_TRUE(members[m].hidden == expected[m].hidden) << "member " << m;
    for (size_t cycle = 0; cycle < kCycles; ++cycle) {
      EXPECT_TRUE(members[m].x[cycle] == expected[m].x[cycle])
          << "cycle " << cycle << ", member " << m;
      EXPECT_TRUE(members[m].y[cycle] == expected[m].y[cycle])
          << "cycle " << cycle << ", member " << m;
      EXPECT_TRUE(members[m].scattered[cycle] == expected[m].scattered[cycle])
          << "cycle " << cycle << ", member " << m;
    }
  }
}

TEST_F(PeerSumTest, TensorsMayLieAnywhere) {
  // From the second element of a quad on: the elements before and behind stay.
  constexpr int64_t kCount = 5'003;
  std::vector<Floats> parts = random_parts(kCount + 1);
  Floats expected(kCount + 1 + kGuard, kGuardValue);
  for (int64_t i = 1; i <= kCount; ++i) {
    expected[static_cast<size_t>(i)] = sum_of(parts, i);
  }
  on_each([&](int member) {
    Floats& own = parts[static_cast<size_t>(member)];
    own.front() = kGuardValue;
    own.resize(expected.size(), kGuardValue);
    Device& device = *devices_[static_cast<size_t>(member)];
    const auto bytes = static_cast<int64_t>(own.size() * sizeof(float));
    device.copy_from_host(values(member), own.data(), bytes, {});
    sum_->run(member, values(member) + 1, kCount, {});
    device.copy_to_host(own.data(), values(member), bytes, {});
    device.synchronize_blocking({});
  });
  for (const Floats& part : parts) {
    EXPECT_EQ(part, expected);
  }
}

TEST_F(PeerSumTest, EveryFloatGetsThrough) {
  // Also the bits that stand for what has not come yet.
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Floats special = {std::bit_cast<float>(0xffffffffU),
                          std::bit_cast<float>(0x7fffffffU),
                          std::bit_cast<float>(0xff800001U),
                          kInfinity,
                          -kInfinity,
                          -0.0F,
                          0.0F,
                          std::numeric_limits<float>::denorm_min(),
                          std::numeric_limits<float>::lowest()};
  const auto bytes = static_cast<int64_t>(special.size() * sizeof(float));
  std::vector<Floats> results(static_cast<size_t>(num_members_), special);
  on_each([&](int member) {
    Device& device = *devices_[static_cast<size_t>(member)];
    Floats& own = results[static_cast<size_t>(member)];
    if (member > 0) {
      std::fill(own.begin(), own.end(), 0.0F);
    }
    for (int call = 0; call < 3; ++call) {
      device.copy_from_host(values(member), own.data(), bytes, {});
      sum_->run(member, values(member), static_cast<int64_t>(own.size()), {});
    }
    device.copy_to_host(own.data(), values(member), bytes, {});
    device.synchronize_blocking({});
  });
  for (const Floats& result : results) {
    for (size_t i = 0; i < special.size(); ++i) {
      EXPECT_EQ(std::isnan(result[i]), i < 3) << "element " << i;
      if (i >= 3) {
        EXPECT_EQ(result[i], special[i]) << "element " << i;
      }
    }
  }
}

TEST_F(PeerSumTest, AnAbortEndsWhoWaits) {
  // Nobody else comes, and a kernel that nobody ends fails after a minute.
  const NormCase shape{100, 6000, DType::kBFloat16};
  const MemberTensors own(*devices_[0], shape, random_values(shape.width));
  const int64_t width = int64_t{6'000} / num_members_ / 4 * 4;
  sum_->run(0, values(0), 100, {});
  sum_->run(0, values(0), 600'000, {});
  EXPECT_TRUE(sum_->run_norm(0, own.params(), {}));
  EXPECT_TRUE(
      sum_->run_scatter(0, values(0), {own.out.data(), DType::kBFloat16, {100, width}}, {}));
  // More than once it has been looked for in vain by then.
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  sum_->abort();
  EXPECT_NO_THROW(devices_[0]->synchronize_blocking({}));
}

}  // namespace
}  // namespace tessera::kernels::cuda
