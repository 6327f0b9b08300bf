#include "tools/bench/gpu_bench.h"

#include <algorithm>
#include <random>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/linear_weight.h"
#include "tools/bench/gpu_read_kernel.h"

namespace tessera::bench {
namespace {

using kernels::DeviceBuffer;
using kernels::DType;

constexpr int kRepeats = 21;
constexpr int kWarmUps = 3;
constexpr int64_t kNoiseBytes = int64_t{16} << 20U;
constexpr int64_t kPieceBytes = int64_t{1} << 20U;
constexpr int64_t kLargeBytes = int64_t{4} << 30U;

}  // namespace

void check_cuda_call(cudaError_t code) {
  if (code != cudaSuccess) {
    throw DeviceError(cudaGetErrorString(code));
  }
}

GpuBench::GpuBench(uint64_t seed)
    : backend_(kernels::cuda::create_cuda_backend(0)), state_(seed | 1U) {
  check_cuda_call(cudaStreamCreate(&stream_));
  check_cuda_call(cudaEventCreate(&before_));
  check_cuda_call(cudaEventCreate(&after_));
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<kernels::BFloat16> noise(kNoiseBytes / sizeof(kernels::BFloat16));
  for (kernels::BFloat16& value : noise) {
    value = kernels::BFloat16::from_float(uniform(random));
  }
  noise_ = upload(noise);
}

GpuBench::~GpuBench() {
  static_cast<void>(cudaEventDestroy(after_));
  static_cast<void>(cudaEventDestroy(before_));
  static_cast<void>(cudaStreamDestroy(stream_));
}

DeviceBuffer GpuBench::random_bytes(int64_t num_bytes) {
  DeviceBuffer buffer = device().allocate(num_bytes);
  for (int64_t done = 0; done < num_bytes; done += kPieceBytes) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;  // Knuth's MMIX
    const auto offset =
        static_cast<int64_t>((state_ >> 33U) % ((kNoiseBytes - kPieceBytes) / 16)) * 16;
    device().copy(static_cast<char*>(buffer.data()) + done,
                  static_cast<const char*>(noise_.data()) + offset,
                  std::min(kPieceBytes, num_bytes - done),
                  {});
  }
  device().synchronize_blocking({});
  return buffer;
}

DeviceBuffer GpuBench::upload_bytes(const void* data, int64_t num_bytes) {
  DeviceBuffer buffer = device().allocate(num_bytes);
  device().copy_from_host(buffer.data(), data, num_bytes, {});
  device().synchronize_blocking({});
  return buffer;
}

double GpuBench::median_us(const Work& work, bool in_graph) {
  return medians_us({work}, in_graph).front();
}

std::vector<double> GpuBench::medians_us(const std::vector<Work>& works, bool in_graph) {
  const auto run = [](const Work& work) {
    for (int i = 0; i < kRuns; ++i) {
      work(i);
    }
  };
  std::vector<cudaGraphExec_t> replays(works.size());
  for (size_t which = 0; which < works.size(); ++which) {
    run(works[which]);
    check_cuda_call(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    check_cuda_call(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    run(works[which]);
    check_cuda_call(cudaStreamEndCapture(stream_, &graph));
    check_cuda_call(cudaGraphInstantiate(&replays[which], graph, 0));
    check_cuda_call(cudaGraphDestroy(graph));
  }
  std::vector<std::vector<double>> times(works.size());
  for (int i = 0; i < kRepeats + kWarmUps; ++i) {
    for (size_t which = 0; which < works.size(); ++which) {
      check_cuda_call(cudaEventRecord(before_, stream_));
      if (in_graph) {
        check_cuda_call(cudaGraphLaunch(replays[which], stream_));
      } else {
        run(works[which]);
      }
      check_cuda_call(cudaEventRecord(after_, stream_));
      check_cuda_call(cudaEventSynchronize(after_));
      float milliseconds = 0.0F;
      check_cuda_call(cudaEventElapsedTime(&milliseconds, before_, after_));
      if (i >= kWarmUps) {
        times[which].push_back(milliseconds * 1e3 / kRuns);
      }
    }
  }
  std::vector<double> medians;
  for (size_t which = 0; which < works.size(); ++which) {
    check_cuda_call(cudaGraphExecDestroy(replays[which]));
    std::sort(times[which].begin(), times[which].end());
    medians.push_back(times[which][times[which].size() / 2]);
  }
  return medians;
}

double GpuBench::copy_bandwidth() {
  const DeviceBuffer from = random_bytes(kLargeBytes);
  const DeviceBuffer to = device().allocate(kLargeBytes);
  const double us =
      median_us([&](int) { device().copy(to.data(), from.data(), kLargeBytes, stream()); }, false);
  return 2.0 * static_cast<double>(kLargeBytes) / us * 1e6;
}

double GpuBench::read_bandwidth() {
  const DeviceBuffer from = random_bytes(kLargeBytes);
  const DeviceBuffer sums = device().allocate(kReadKernelSumBytes);
  const double us =
      median_us([&](int) { launch_read_kernel(from.data(), kLargeBytes, sums.data(), stream_); });
  return static_cast<double>(kLargeBytes) / us * 1e6;
}

double GpuBench::product_rate() {
  constexpr int64_t kSize = 8192;
  return 2.0 * static_cast<double>(kSize * kSize * kSize) / linear_us({kSize, kSize, kSize}) * 1e6;
}

namespace {

/// Numbers of the weight after `num_before` others.
std::unique_ptr<kernels::LinearWeight> random_float8(kernels::Ops& ops,
                                                     const LinearProduct& product,
                                                     int64_t num_before) {
  auto weight = ops.make_linear_weight({.out_features = product.out,
                                        .in_features = product.in,
                                        .dtype = DType::kBFloat16,
                                        .scales = kernels::BlockScales{}});
  const kernels::RandomRows rows{
      .counter = static_cast<uint64_t>(num_before * product.out * product.in),
      .rows = product.out,
      .half_width = 0.03F};
  ops.fill_linear_weight(*weight, 0, {&rows, 1});
  return weight;
}

}  // namespace

double GpuBench::linear_us(const LinearProduct& product) {
  const auto [rows, out, in, way] = product;
  // A run is several products, so that kRuns of them are 256 MiB of weights.
  const int64_t weight_bytes = out * in * (way == LinearWay::kFloat8 ? 1 : 2);
  const int64_t num_weights =
      std::clamp<int64_t>((int64_t{256} << 20U) / weight_bytes, 1, 32 * kRuns);
  const int64_t per_run = std::max<int64_t>(1, num_weights / kRuns);
  std::vector<std::unique_ptr<kernels::LinearWeight>> weights;
  std::vector<kernels::BFloat16> matrix(static_cast<size_t>(out * in));
  std::mt19937 random(3);
  for (kernels::BFloat16& value : matrix) {
    value = {static_cast<uint16_t>(0x3c00U + (random() & 0x81ffU))};
  }
  for (int64_t i = 0; i < num_weights; ++i) {
    if (way == LinearWay::kFloat8) {
      weights.push_back(random_float8(ops(), product, i));
      continue;
    }
    weights.push_back(ops().make_linear_weight({1, out, in, DType::kBFloat16}));
    ops().load_linear_weight(*weights.back(), 0, {matrix.data(), DType::kBFloat16, {out, in}});
  }
  const DeviceBuffer x = random_bytes(rows * in * 2);
  const DeviceBuffer result = device().allocate(rows * out * 4);
  // create_cuda_backend()'s device is one.
  kernels::cuda::Blas blas(static_cast<kernels::cuda::CudaDevice&>(device()));
  const auto multiply = [&](const kernels::LinearWeight* weight) {
    if (way != LinearWay::kCuBlasLt) {
      ops().linear({.x = {x.data(), DType::kBFloat16, {rows, in}},
                    .weight = weight,
                    .bias = {},
                    .out = {result.data(), DType::kBFloat16, {rows, out}}},
                   stream());
      return;
    }
    const bool is_done = blas.run({.x = x.data(),
                                   .weight = kernels::cuda::on_device(weight).group(0),
                                   .out = result.data(),
                                   .rows = rows,
                                   .out_features = out,
                                   .in_features = in,
                                   .x_stride = in,
                                   .out_stride = out,
                                   .dtype = DType::kBFloat16,
                                   .out_dtype = DType::kBFloat16},
                                  stream_);
    TESSERA_CHECK(is_done, "cuBLASLt takes every product here");
  };
  const double us = median_us([&](int run) {
    for (int64_t i = 0; i < per_run; ++i) {
      multiply(weights[static_cast<size_t>((run * per_run + i) % num_weights)].get());
    }
  });
  return us / static_cast<double>(per_run);
}

}  // namespace tessera::bench
