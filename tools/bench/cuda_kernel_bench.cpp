// Kernels of the CUDA backend beside their bounds: decode attention and dense products by the bytes
// they must read at the bandwidth of a device copy, prefill attention and large products, also of
// experts, by the rate of a large bfloat16 product, all measured in the same run. Medians over CUDA
// events.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <cuda_runtime_api.h>

#include "kernels/core/check.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/linear_weight.h"

namespace tessera::bench {
namespace {

using kernels::DeviceBuffer;
using kernels::DType;
using kernels::StreamView;
using kernels::TensorView;

constexpr int kRepeats = 21;

void check(cudaError_t code) {
  if (code != cudaSuccess) {
    throw DeviceError(cudaGetErrorString(code));
  }
}

class Bench final {
 public:
  Bench() : backend_(kernels::cuda::create_cuda_backend(0)) {
    check(cudaStreamCreate(&stream_));
    check(cudaEventCreate(&before_));
    check(cudaEventCreate(&after_));
    noise_.resize(size_t{1} << 22);
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    for (kernels::BFloat16& value : noise_) {
      value = kernels::BFloat16::from_float(uniform(random));
    }
  }
  ~Bench() {
    static_cast<void>(cudaEventDestroy(after_));
    static_cast<void>(cudaEventDestroy(before_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  kernels::Ops& ops() { return backend_->ops(); }
  kernels::Device& device() { return backend_->device(); }
  [[nodiscard]] StreamView stream() const { return {stream_}; }

  /// Bytes of random bfloat16 numbers.
  DeviceBuffer random_bytes(int64_t num_bytes) {
    DeviceBuffer buffer = device().allocate(num_bytes);
    const auto noise_bytes = static_cast<int64_t>(noise_.size() * 2);
    for (int64_t done = 0; done < num_bytes; done += noise_bytes) {
      char* to = static_cast<char*>(buffer.data()) + done;
      const int64_t piece = std::min(noise_bytes, num_bytes - done);
      if (done == 0) {
        device().copy_from_host(to, noise_.data(), piece, {});
      } else {
        device().copy(to, buffer.data(), piece, {});
      }
    }
    device().synchronize_blocking({});
    return buffer;
  }
  DeviceBuffer integers(const std::vector<int32_t>& values) {
    const auto num_bytes = static_cast<int64_t>(values.size() * 4);
    DeviceBuffer buffer = device().allocate(num_bytes);
    device().copy_from_host(buffer.data(), values.data(), num_bytes, {});
    device().synchronize_blocking({});
    return buffer;
  }

  /// Median microseconds of work(i), in runs of a few; their launches are captured into a graph if
  /// they are kernels of ours.
  double median_us(const std::function<void(int)>& work, bool in_graph = true) {
    constexpr int kInGraph = 4;
    const auto run = [&] {
      for (int i = 0; i < kInGraph; ++i) {
        work(i);
      }
    };
    run();
    check(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    run();
    check(cudaStreamEndCapture(stream_, &graph));
    check(cudaGraphInstantiate(&replay, graph, 0));
    std::vector<double> times;
    for (int i = 0; i < kRepeats + 3; ++i) {
      check(cudaEventRecord(before_, stream_));
      if (in_graph) {
        check(cudaGraphLaunch(replay, stream_));
      } else {
        run();
      }
      check(cudaEventRecord(after_, stream_));
      check(cudaEventSynchronize(after_));
      float milliseconds = 0.0F;
      check(cudaEventElapsedTime(&milliseconds, before_, after_));
      if (i >= 3) {
        times.push_back(milliseconds * 1e3 / kInGraph);
      }
    }
    check(cudaGraphExecDestroy(replay));
    check(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  std::unique_ptr<kernels::Backend> backend_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t before_ = nullptr;
  cudaEvent_t after_ = nullptr;
  std::vector<kernels::BFloat16> noise_;
};

/// Bytes read and written per second by a copy within the device.
double copy_bandwidth(Bench& bench) {
  constexpr int64_t kBytes = int64_t{4} << 30;
  const DeviceBuffer from = bench.random_bytes(kBytes);
  const DeviceBuffer to = bench.device().allocate(kBytes);
  const double us = bench.median_us(
      [&](int) { bench.device().copy(to.data(), from.data(), kBytes, bench.stream()); }, false);
  return 2.0 * static_cast<double>(kBytes) / us * 1e6;
}

struct Product {
  int64_t rows, out, in;
};

enum class Way { kOps, kBlas };

/// Products rotate among weights that do not fit the L2 cache together.
double linear_us(Bench& bench, const Product& product, Way way = Way::kOps) {
  const int64_t weight_bytes = product.out * product.in * 2;
  const int64_t copies = std::clamp<int64_t>((int64_t{256} << 20) / weight_bytes, 1, 4);
  std::vector<std::unique_ptr<kernels::LinearWeight>> weights;
  std::vector<kernels::BFloat16> matrix(static_cast<size_t>(product.out * product.in));
  std::mt19937 random(3);
  for (kernels::BFloat16& value : matrix) {
    value = {static_cast<uint16_t>(0x3c00U + (random() & 0x81ffU))};
  }
  for (int64_t i = 0; i < copies; ++i) {
    weights.push_back(
        bench.ops().make_linear_weight({1, product.out, product.in, DType::kBFloat16}));
    bench.ops().load_linear_weight(
        *weights.back(), 0, {matrix.data(), DType::kBFloat16, {product.out, product.in}});
  }
  const DeviceBuffer x = bench.random_bytes(product.rows * product.in * 2);
  const DeviceBuffer out = bench.device().allocate(product.rows * product.out * 4);
  // Every backend here is made by create_cuda_backend().
  kernels::cuda::Blas blas(static_cast<kernels::cuda::CudaDevice&>(bench.device()));
  return bench.median_us([&](int i) {
    const kernels::LinearWeight* weight = weights[static_cast<size_t>(i) % weights.size()].get();
    if (way == Way::kBlas) {
      static_cast<void>(blas.run({.x = x.data(),
                                  .weight = kernels::cuda::on_device(weight).group(0),
                                  .out = out.data(),
                                  .rows = product.rows,
                                  .out_features = product.out,
                                  .in_features = product.in,
                                  .x_stride = product.in,
                                  .out_stride = product.out,
                                  .dtype = DType::kBFloat16,
                                  .out_dtype = DType::kBFloat16},
                                 static_cast<cudaStream_t>(bench.stream().handle)));
      return;
    }
    bench.ops().linear({.x = {x.data(), DType::kBFloat16, {product.rows, product.in}},
                        .weight = weight,
                        .bias = {},
                        .out = {out.data(), DType::kBFloat16, {product.rows, product.out}}},
                       bench.stream());
  });
}

struct Decode {
  int64_t batch, heads, width, context;
};

double decode_us(Bench& bench, const Decode& shape) {
  constexpr int64_t kRope = 64;
  const int64_t blocks = (shape.context + kernels::kBlockTokens - 1) / kernels::kBlockTokens;
  const int64_t block_bytes = kernels::kBlockTokens * (shape.width + kRope) * 2;
  const DeviceBuffer pool = bench.random_bytes(shape.batch * blocks * block_bytes);
  std::vector<int32_t> tables(static_cast<size_t>(shape.batch * blocks));
  std::iota(tables.begin(), tables.end(), 0);
  std::shuffle(tables.begin(), tables.end(), std::mt19937(11));
  const DeviceBuffer table = bench.integers(tables);
  const DeviceBuffer lengths = bench.integers(
      std::vector<int32_t>(static_cast<size_t>(shape.batch), static_cast<int32_t>(shape.context)));
  const DeviceBuffer q = bench.random_bytes(shape.batch * shape.heads * (shape.width + kRope) * 2);
  const DeviceBuffer out = bench.device().allocate(shape.batch * shape.heads * shape.width * 2);
  const DeviceBuffer lse = bench.device().allocate(shape.batch * shape.heads * 4);
  const TensorView query(
      q.data(), DType::kBFloat16, {shape.batch, shape.heads, shape.width + kRope});
  return bench.median_us([&](int) {
    bench.ops().mla_decode(
        {.q_latent = query.slice(2, 0, shape.width),
         .q_rope = query.slice(2, shape.width, kRope),
         .cache = {.base = pool.data(),
                   .block_stride_bytes = block_bytes,
                   .num_blocks = shape.batch * blocks,
                   .latent_width = shape.width,
                   .rope_width = kRope,
                   .dtype = DType::kBFloat16},
         .block_tables = {table.data(), DType::kInt32, {shape.batch, blocks}},
         .lengths = {lengths.data(), DType::kInt32, {shape.batch}},
         .scale = 0.07F,
         .out = {out.data(), DType::kBFloat16, {shape.batch, shape.heads, shape.width}},
         .log_sum_exp = {lse.data(), DType::kFloat32, {shape.batch, shape.heads}}},
        bench.stream());
  });
}

struct Prefill {
  int64_t tokens, cached, heads;
};

/// Queries over the cached tokens before them and over themselves.
double prefill_us(Bench& bench, const Prefill& shape) {
  const int64_t tokens = shape.tokens;
  const int64_t heads = shape.heads;
  const int64_t keys = shape.cached + tokens;
  const DeviceBuffer q = bench.random_bytes(tokens * heads * 192 * 2);
  const DeviceBuffer kv = bench.random_bytes(keys * heads * 256 * 2);
  const DeviceBuffer rope = bench.random_bytes(keys * 64 * 2);
  const DeviceBuffer accumulator = bench.device().allocate(tokens * heads * 128 * 4);
  const DeviceBuffer state = bench.device().allocate(2 * tokens * heads * 4);
  const DeviceBuffer out = bench.device().allocate(tokens * heads * 128 * 2);
  return bench.median_us([&](int) {
    bench.ops().mla_prefill(
        {.q = {q.data(), DType::kBFloat16, {tokens, heads, 192}},
         .kv = {kv.data(), DType::kBFloat16, {keys, heads, 256}},
         .k_rope = {rope.data(), DType::kBFloat16, {keys, 64}},
         .query_begin = shape.cached,
         .scale = 0.07F,
         .accumulator = {accumulator.data(), DType::kFloat32, {tokens, heads, 128}},
         .max_logit = {state.data(), DType::kFloat32, {tokens, heads}},
         .sum = {static_cast<float*>(state.data()) + tokens * heads,
                 DType::kFloat32,
                 {tokens, heads}},
         .out = {out.data(), DType::kBFloat16, {tokens, heads, 128}}},
        bench.stream());
  });
}

/// Tokens that choose 6 of 64 experts by chance, and a product of these.
struct Experts {
  int64_t tokens, out, in;
};
constexpr int64_t kNumExperts = 64;
constexpr int64_t kTopK = 6;

double experts_us(Bench& bench, const Experts& shape) {
  const auto weight =
      bench.ops().make_linear_weight({kNumExperts, shape.out, shape.in, DType::kBFloat16});
  std::vector<kernels::BFloat16> matrix(static_cast<size_t>(shape.out * shape.in));
  std::mt19937 random(5);
  for (kernels::BFloat16& value : matrix) {
    value = {static_cast<uint16_t>(0x3c00U + (random() & 0x81ffU))};
  }
  std::vector<int32_t> offsets(kNumExperts + 1);
  for (int64_t pair = 0; pair < shape.tokens * kTopK; ++pair) {
    ++offsets[1 + random() % kNumExperts];
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  for (int64_t g = 0; g < kNumExperts; ++g) {
    bench.ops().load_linear_weight(
        *weight, g, {matrix.data(), DType::kBFloat16, {shape.out, shape.in}});
  }
  const int64_t rows = offsets.back();
  const DeviceBuffer bounds = bench.integers(offsets);
  const DeviceBuffer x = bench.random_bytes(rows * shape.in * 2);
  const DeviceBuffer out = bench.device().allocate(rows * shape.out * 4);
  return bench.median_us([&](int) {
    bench.ops().grouped_linear({.x = {x.data(), DType::kBFloat16, {rows, shape.in}},
                                .offsets = {bounds.data(), DType::kInt32, {kNumExperts + 1}},
                                .weight = weight.get(),
                                .out = {out.data(), DType::kFloat32, {rows, shape.out}}},
                               bench.stream());
  });
}

/// Measured in the same run.
struct Ceilings {
  double bandwidth = 0.0;  ///< bytes a second
  double rate = 0.0;       ///< operations a second
};

void report_experts(Bench& bench, const Ceilings& ceilings) {
  std::printf("\ngrouped_linear tokens    out     in        us   TFLOP/s  bound us   ratio\n");
  for (const int64_t tokens : {64, 512, 2048, 8192}) {
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{2816, 2048}, {2048, 1408}}) {
      const double us = experts_us(bench, {tokens, out, in});
      const int64_t rows = tokens * kTopK;
      const double flops = 2.0 * static_cast<double>(rows * out * in);
      const auto bytes =
          static_cast<double>(2 * (kNumExperts * out * in + rows * in) + 4 * rows * out);
      const double bound = std::max(bytes / ceilings.bandwidth, flops / ceilings.rate) * 1e6;
      std::printf("%21lld %6lld %6lld %9.1f %9.0f %9.1f %7.2f\n",
                  static_cast<long long>(tokens),
                  static_cast<long long>(out),
                  static_cast<long long>(in),
                  us,
                  flops / us / 1e6,
                  bound,
                  us / bound);
    }
  }
}

void report_prefill(Bench& bench, const Ceilings& ceilings) {
  std::printf("\nmla_prefill tokens  cached  heads        us   TFLOP/s  of the product's\n");
  for (const Prefill& shape : std::initializer_list<Prefill>{
           {2048, 0, 16}, {8192, 0, 16}, {8192, 8192, 16}, {8192, 0, 128}}) {
    const double us = prefill_us(bench, shape);
    const double seen = static_cast<double>(shape.cached) + 0.5 * static_cast<double>(shape.tokens);
    const double pairs = seen * static_cast<double>(shape.tokens * shape.heads);
    const double flops = 2.0 * pairs * (192 + 128);
    std::printf("%18lld %7lld %6lld %9.1f %9.0f %16.2f\n",
                static_cast<long long>(shape.tokens),
                static_cast<long long>(shape.cached),
                static_cast<long long>(shape.heads),
                us,
                flops / us / 1e6,
                flops / us * 1e6 / ceilings.rate);
  }
}

void report_linear(Bench& bench, const Ceilings& ceilings) {
  std::printf("\nlinear      rows    out     in        us  cuBLASLt  bound us   ratio\n");
  for (const Product& p : std::initializer_list<Product>{{1, 576, 2048},
                                                         {1, 2048, 2048},
                                                         {1, 3072, 2048},
                                                         {1, 5632, 2048},
                                                         {1, 2048, 2816},
                                                         {1, 102400, 2048},
                                                         {8, 3072, 2048},
                                                         {8, 24576, 1536},
                                                         {8, 7168, 16384},
                                                         {16, 3072, 2048},
                                                         {16, 24576, 1536},
                                                         {16, 7168, 16384},
                                                         {64, 3072, 2048},
                                                         {64, 2048, 2048},
                                                         {64, 24576, 1536},
                                                         {64, 7168, 16384},
                                                         {512, 24576, 1536},
                                                         {4096, 7168, 16384}}) {
    const double us = linear_us(bench, p);
    const double blas_us = linear_us(bench, p, Way::kBlas);
    const auto product = static_cast<double>(p.rows * p.out * p.in);
    const auto bytes = static_cast<double>(2 * (p.out * p.in + p.rows * (p.in + p.out)));
    const double bound = std::max(bytes / ceilings.bandwidth, 2.0 * product / ceilings.rate) * 1e6;
    std::printf("%16lld %6lld %6lld %9.1f %9.1f %9.1f %7.2f\n",
                static_cast<long long>(p.rows),
                static_cast<long long>(p.out),
                static_cast<long long>(p.in),
                us,
                blas_us,
                bound,
                us / bound);
  }
}

void report_decode(Bench& bench, const Ceilings& ceilings) {
  std::printf("\nmla_decode batch  heads  width context        us      GB/s  bound us   ratio\n");
  for (const int64_t width : {512, 256, 128}) {
    for (const int64_t heads : {16, 64, 128}) {
      for (const auto& [batch, context] :
           {std::pair<int64_t, int64_t>{1, 32768}, {8, 32768}, {64, 4096}, {64, 32768}}) {
        const double us = decode_us(bench, {batch, heads, width, context});
        const auto bytes = static_cast<double>(batch * context * (width + 64) * 2);
        const double flops = 2.0 * static_cast<double>(batch * context * heads * (2 * width + 64));
        const double bound = std::max(bytes / ceilings.bandwidth, flops / ceilings.rate) * 1e6;
        std::printf("%16lld %6lld %6lld %7lld %9.1f %9.0f %9.1f %7.2f\n",
                    static_cast<long long>(batch),
                    static_cast<long long>(heads),
                    static_cast<long long>(width),
                    static_cast<long long>(context),
                    us,
                    bytes / us / 1e3,
                    bound,
                    us / bound);
      }
    }
  }
}

void report(Bench& bench) {
  const double bandwidth = copy_bandwidth(bench);
  const Product large{8192, 8192, 8192};
  const double rate = 2.0 * 8192.0 * 8192.0 * 8192.0 / linear_us(bench, large) * 1e6;
  std::printf("%s\ncopy %.0f GB/s, bfloat16 product %.0f TFLOP/s\n",
              bench.device().description().c_str(),
              bandwidth / 1e9,
              rate / 1e12);
  const Ceilings ceilings = {bandwidth, rate};
  report_linear(bench, ceilings);
  report_decode(bench, ceilings);
  report_prefill(bench, ceilings);
  report_experts(bench, ceilings);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  CLI::App app("Kernels of the CUDA backend beside their bounds");
  CLI11_PARSE(app, argc, argv);
  try {
    tessera::bench::Bench bench;
    tessera::bench::report(bench);
  } catch (const tessera::DeviceError& error) {
    std::fprintf(stderr, "cuda_kernel_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
