// Kernels of the CUDA backend beside their bounds: dense products by the bytes they must read at
// the bandwidth of a device copy, prefill attention and large products, also of experts, by the
// rate of a large bfloat16 product, all measured in the same run. Decode attention has
// attention_bench.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/bench/gpu_bench.h"

namespace tessera::bench {
namespace {

using kernels::DeviceBuffer;
using kernels::DType;

struct Prefill {
  int64_t tokens, cached, heads;
};

/// Queries over the cached tokens before them and over themselves.
double prefill_us(GpuBench& bench, const Prefill& shape) {
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
  bool is_float8 = false;
};
constexpr int64_t kNumExperts = 64;
constexpr int64_t kTopK = 6;

std::unique_ptr<kernels::LinearWeight> experts_weight(GpuBench& bench, const Experts& shape) {
  kernels::LinearShape sizes{.num_groups = kNumExperts,
                             .out_features = shape.out,
                             .in_features = shape.in,
                             .dtype = DType::kBFloat16};
  if (shape.is_float8) {
    sizes.scales = kernels::BlockScales{};
  }
  auto weight = bench.ops().make_linear_weight(sizes);
  for (int64_t g = 0; g < kNumExperts; ++g) {
    const kernels::RandomRows rows{.counter = static_cast<uint64_t>(g * shape.out * shape.in),
                                   .rows = shape.out,
                                   .half_width = 0.03F};
    bench.ops().fill_linear_weight(*weight, g, {&rows, 1});
  }
  return weight;
}

double experts_us(GpuBench& bench, const Experts& shape) {
  const auto weight = experts_weight(bench, shape);
  std::mt19937 random(5);
  std::vector<int32_t> offsets(kNumExperts + 1);
  for (int64_t pair = 0; pair < shape.tokens * kTopK; ++pair) {
    ++offsets[1 + random() % kNumExperts];
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  const int64_t rows = offsets.back();
  const DeviceBuffer bounds = bench.upload(offsets);
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

void report_experts(GpuBench& bench, const Ceilings& ceilings) {
  std::printf(
      "\ngrouped_linear tokens    out     in        us   TFLOP/s  bound us   ratio  float8 us\n");
  for (const int64_t tokens : {64, 512, 2048, 8192}) {
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{2816, 2048}, {2048, 1408}}) {
      const double us = experts_us(bench, {tokens, out, in});
      const double float8_us = experts_us(bench, {tokens, out, in, true});
      const int64_t rows = tokens * kTopK;
      const double flops = 2.0 * static_cast<double>(rows * out * in);
      const auto bytes =
          static_cast<double>(2 * (kNumExperts * out * in + rows * in) + 4 * rows * out);
      const double bound = std::max(bytes / ceilings.bandwidth, flops / ceilings.rate) * 1e6;
      std::printf("%21lld %6lld %6lld %9.1f %9.0f %9.1f %7.2f %10.1f\n",
                  static_cast<long long>(tokens),
                  static_cast<long long>(out),
                  static_cast<long long>(in),
                  us,
                  flops / us / 1e6,
                  bound,
                  us / bound,
                  float8_us);
    }
  }
}

void report_prefill(GpuBench& bench, const Ceilings& ceilings) {
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

void report_linear(GpuBench& bench, const Ceilings& ceilings) {
  std::printf(
      "\nlinear      rows    out     in        us  cuBLASLt  bound us   ratio  float8 us\n");
  for (const LinearProduct& p : std::initializer_list<LinearProduct>{
           {1, 576, 2048},     {1, 2048, 2048},    {1, 3072, 2048},   {1, 5632, 2048},
           {1, 2048, 2816},    {1, 102400, 2048},  {8, 3072, 2048},   {8, 24576, 1536},
           {8, 7168, 16384},   {16, 3072, 2048},   {16, 24576, 1536}, {16, 7168, 16384},
           {17, 7168, 16384},  {32, 7168, 16384},  {64, 3072, 2048},  {64, 2048, 2048},
           {64, 24576, 1536},  {64, 7168, 16384},  {68, 7168, 16384}, {128, 7168, 16384},
           {512, 24576, 1536}, {4096, 7168, 16384}}) {
    const double us = bench.linear_us({p.rows, p.out, p.in});
    const double blas_us = bench.linear_us({p.rows, p.out, p.in, LinearWay::kCuBlasLt});
    const double float8_us = bench.linear_us({p.rows, p.out, p.in, LinearWay::kFloat8});
    const auto product = static_cast<double>(p.rows * p.out * p.in);
    const auto bytes = static_cast<double>(2 * (p.out * p.in + p.rows * (p.in + p.out)));
    const double bound = std::max(bytes / ceilings.bandwidth, 2.0 * product / ceilings.rate) * 1e6;
    std::printf("%16lld %6lld %6lld %9.1f %9.1f %9.1f %7.2f %10.1f\n",
                static_cast<long long>(p.rows),
                static_cast<long long>(p.out),
                static_cast<long long>(p.in),
                us,
                blas_us,
                bound,
                us / bound,
                float8_us);
  }
}

void report(GpuBench& bench) {
  const Ceilings ceilings = {bench.copy_bandwidth(), bench.product_rate()};
  std::printf("%s\ncopy %.0f GB/s, bfloat16 product %.0f TFLOP/s\n",
              bench.device().description().c_str(),
              ceilings.bandwidth / 1e9,
              ceilings.rate / 1e12);
  report_linear(bench, ceilings);
  report_prefill(bench, ceilings);
  report_experts(bench, ceilings);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  CLI::App app("Kernels of the CUDA backend beside their bounds");
  CLI11_PARSE(app, argc, argv);
  try {
    tessera::bench::GpuBench bench(7);
    tessera::bench::report(bench);
  } catch (const tessera::DeviceError& error) {
    std::fprintf(stderr, "cuda_kernel_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
