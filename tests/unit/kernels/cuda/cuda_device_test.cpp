#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace tessera::testing {
namespace {

using kernels::DeviceBuffer;
using kernels::cuda::create_cuda_backend;

std::vector<int32_t> counting(int64_t count, int32_t first) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(CudaDeviceTest, CopiesLandWhereTheyBelong) {
  const auto backend = create_cuda_backend(0);
  kernels::Device& device = backend->device();
  // Below, at and above what the pinned memory holds at once.
  for (const int64_t count : {1, 1000, 1 << 18, (1 << 20) + 3, 5'000'001}) {
    const int64_t num_bytes = count * 4;
    const std::vector<int32_t> sent = counting(count, 7);
    std::vector<int32_t> received(sent.size(), -1);
    const DeviceBuffer first = device.allocate(num_bytes);
    const DeviceBuffer second = device.allocate(num_bytes);
    device.copy_from_host(first.data(), sent.data(), num_bytes, {});
    device.copy(second.data(), first.data(), num_bytes, {});
    device.copy_to_host(received.data(), second.data(), num_bytes, {});
    device.synchronize_blocking({});
    EXPECT_EQ(received, sent) << count;
  }
}

TEST(CudaDeviceTest, ASourceMayBeReusedAtOnce) {
  const auto backend = create_cuda_backend(0);
  kernels::Device& device = backend->device();
  constexpr int64_t kCount = 100'000;
  constexpr int kCopies = 60;  // more than the pinned memory holds
  const DeviceBuffer buffer = device.allocate(kCopies * kCount * 4);
  std::vector<int32_t> values;
  for (int i = 0; i < kCopies; ++i) {
    values = counting(kCount, i * 1000);
    device.copy_from_host(
        static_cast<char*>(buffer.data()) + i * kCount * 4, values.data(), kCount * 4, {});
    values.assign(values.size(), -1);
  }
  std::vector<int32_t> received(kCopies * kCount);
  device.copy_to_host(received.data(), buffer.data(), buffer.num_bytes(), {});
  device.synchronize_blocking({});
  for (int i = 0; i < kCopies; ++i) {
    for (int64_t j = 0; j < kCount; ++j) {
      ASSERT_EQ(received[static_cast<size_t>(i * kCount + j)], i * 1000 + j);
    }
  }
}

TEST(CudaDeviceTest, ManySmallReadsLandTogether) {
  const auto backend = create_cuda_backend(0);
  kernels::Device& device = backend->device();
  constexpr int64_t kCount = 100'000;
  const std::vector<int32_t> sent = counting(kCount, 0);
  const DeviceBuffer buffer = device.allocate(kCount * 4);
  device.copy_from_host(buffer.data(), sent.data(), kCount * 4, {});
  for (int round = 0; round < 2; ++round) {
    std::vector<int32_t> received(sent.size(), -1);
    for (int64_t i = 0; i < kCount; i += 1000) {
      device.copy_to_host(received.data() + i, static_cast<char*>(buffer.data()) + i * 4, 4000, {});
    }
    device.synchronize_blocking({});
    EXPECT_EQ(received, sent);
  }
}

TEST(CudaDeviceTest, OutOfMemoryNamesTheDeviceAndTheBytes) {
  const auto backend = create_cuda_backend(0);
  try {
    const DeviceBuffer buffer = backend->device().allocate(int64_t{1} << 46U);
    FAIL() << "allocated";
  } catch (const DeviceError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("cuda device 0"), std::string::npos) << message;
    EXPECT_NE(message.find(std::to_string(int64_t{1} << 46U)), std::string::npos) << message;
  }
  EXPECT_NO_THROW(static_cast<void>(backend->device().allocate(1000)));
}

TEST(CudaDeviceTest, RefusesADeviceThatIsNotThere) {
  EXPECT_THROW(static_cast<void>(create_cuda_backend(kernels::cuda::num_cuda_devices())),
               DeviceError);
}

TEST(CudaDeviceTest, WorksFromAnyThread) {
  const auto backend = create_cuda_backend(0);
  std::vector<int32_t> received(100, -1);
  const std::vector<int32_t> sent = counting(100, 3);
  std::thread([&] {
    kernels::Device& device = backend->device();
    const DeviceBuffer buffer = device.allocate(400);
    device.copy_from_host(buffer.data(), sent.data(), 400, {});
    device.copy_to_host(received.data(), buffer.data(), 400, {});
    device.synchronize_blocking({});
  }).join();
  EXPECT_EQ(received, sent);
}

}  // namespace
}  // namespace tessera::testing
