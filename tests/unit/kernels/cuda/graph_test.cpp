// Operations can be captured into a graph: they neither allocate nor wait, and a replay reads
// lengths, tables and offsets anew.

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda_backend.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing {
namespace {

using kernels::DeviceBuffer;
using kernels::DType;
using kernels::kBlockTokens;
using kernels::TensorView;

constexpr int64_t kRows = 3, kHeads = 16, kWidth = 64, kRope = 32, kMaxBlocks = 40;
constexpr int64_t kExperts = 8, kTopK = 2, kHidden = kHeads * kWidth;

class GraphTest : public ::testing::Test {
 protected:
  /// Memory for a tensor, filled with random numbers of its type.
  TensorView tensor(DType dtype, std::vector<int64_t> shape) {
    return upload(HostTensor(dtype, random_.array(std::move(shape), 0.5)));
  }
  TensorView upload(const HostTensor& host) {
    const auto num_bytes = static_cast<int64_t>(host.bytes().size());
    buffers_.push_back(device_.allocate(num_bytes));
    device_.copy_from_host(buffers_.back().data(), host.bytes().data(), num_bytes, {});
    device_.synchronize_blocking({});
    const kernels::ConstTensorView on_host = host.view();
    TensorView view;
    view.data = buffers_.back().data();
    view.dtype = on_host.dtype;
    view.rank = on_host.rank;
    view.shape = on_host.shape;
    view.stride = on_host.stride;
    return view;
  }
  void set(const TensorView& view, const std::vector<int32_t>& values) {
    device_.copy_from_host(view.data, values.data(), static_cast<int64_t>(values.size()) * 4, {});
    device_.synchronize_blocking({});
  }
  std::vector<float> floats(const TensorView& view) {
    std::vector<float> values(static_cast<size_t>(view.num_elements()));
    device_.copy_to_host(values.data(), view.data, view.num_elements() * 4, {});
    device_.synchronize_blocking({});
    return values;
  }

  Random random_{std::random_device{}()};
  std::unique_ptr<kernels::Backend> backend_ = kernels::cuda::create_cuda_backend(0);
  kernels::Device& device_ = backend_->device();
  kernels::Ops& ops_ = backend_->ops();
  std::vector<DeviceBuffer> buffers_;
};

TEST_F(GraphTest, AReplayReadsLengthsTablesAndExpertsAnew) {
  const int64_t row_bytes = (kWidth + kRope) * 2;
  const TensorView pool = tensor(DType::kBFloat16, {kMaxBlocks * kBlockTokens, kWidth + kRope});
  const TensorView q = tensor(DType::kBFloat16, {kRows, kHeads, kWidth + kRope});
  const TensorView attended = tensor(DType::kBFloat16, {kRows, kHeads, kWidth});
  const TensorView lse = tensor(DType::kFloat32, {kRows, kHeads});
  Array table({kRows, kMaxBlocks});
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kMaxBlocks; ++j) {
      table.at(i, j) = static_cast<double>((j * 7 + i) % kMaxBlocks);
    }
  }
  const TensorView tables = upload(HostTensor(DType::kInt32, table));
  const TensorView lengths = upload(HostTensor(std::vector<int32_t>{1, 2, 3}));
  const TensorView ids =
      upload(HostTensor(DType::kInt32, Array({kRows, kTopK}, {0, 1, 2, 3, 4, 5})));
  const TensorView permuted = tensor(DType::kBFloat16, {kRows * kTopK, kHidden});
  const TensorView offsets = tensor(DType::kInt32, {kExperts + 1});
  const TensorView row_of_pair = tensor(DType::kInt32, {kRows, kTopK});
  const TensorView expert_out = tensor(DType::kFloat32, {kRows * kTopK, 40});
  const TensorView dense_out = tensor(DType::kFloat32, {kRows, 48});
  const auto experts = ops_.make_linear_weight({kExperts, 40, kHidden, DType::kBFloat16});
  for (int64_t g = 0; g < kExperts; ++g) {
    const HostTensor matrix(DType::kFloat32, random_.array({40, kHidden}));
    ops_.load_linear_weight(*experts, g, matrix.view());
  }
  const auto dense = ops_.make_linear_weight({1, 48, kHidden, DType::kBFloat16});
  const HostTensor matrix(DType::kFloat32, random_.array({48, kHidden}));
  ops_.load_linear_weight(*dense, 0, matrix.view());

  const auto step = [&](kernels::StreamView stream) {
    ops_.mla_decode({.q_latent = q.slice(2, 0, kWidth),
                     .q_rope = q.slice(2, kWidth, kRope),
                     .cache = {.base = pool.data,
                               .block_stride_bytes = kBlockTokens * row_bytes,
                               .num_blocks = kMaxBlocks,
                               .latent_width = kWidth,
                               .rope_width = kRope,
                               .dtype = DType::kBFloat16},
                     .block_tables = tables,
                     .lengths = lengths,
                     .scale = 0.5F,
                     .out = attended,
                     .log_sum_exp = lse},
                    stream);
    const TensorView rows(attended.data, DType::kBFloat16, {kRows, kHidden});
    ops_.linear({.x = rows, .weight = dense.get(), .bias = {}, .out = dense_out}, stream);
    ops_.moe_permute({.x = rows,
                      .expert_ids = ids,
                      .permuted = permuted,
                      .offsets = offsets,
                      .row_of_pair = row_of_pair},
                     stream);
    ops_.grouped_linear(
        {.x = permuted, .offsets = offsets, .weight = experts.get(), .out = expert_out}, stream);
  };

  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  step({stream});
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);

  for (const auto& [length_list, expert_list] :
       {std::pair<std::vector<int32_t>, std::vector<int32_t>>{{2000, 64, 1}, {7, 7, 7, 7, 7, 7}},
        {{0, 2560, 65}, {1, 0, 3, 2, 5, 1}}}) {
    set(lengths, length_list);
    set(ids, expert_list);
    step({});
    const std::vector<float> expected_lse = floats(lse);
    const std::vector<float> expected_dense = floats(dense_out);
    const std::vector<float> expected_experts = floats(expert_out);
    for (const TensorView& view : {lse, dense_out, expert_out}) {  // poison
      set(view, std::vector<int32_t>(static_cast<size_t>(view.num_elements()), -1));
    }
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(floats(lse), expected_lse);
    EXPECT_EQ(floats(dense_out), expected_dense);
    EXPECT_EQ(floats(expert_out), expected_experts);
  }
  EXPECT_EQ(cudaGraphExecDestroy(replay), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

// The thread blocks of a call wait for each other by counters in memory, which each call leaves as
// it found them; the order of sums is fixed, so that a result has the same bits in every run.
TEST_F(GraphTest, ManyDecodesInARowYieldWhatEachYieldsAlone) {
  constexpr int64_t kLatent = 256, kRopeColumns = 64, kBlocks = 300, kCalls = 50, kReplays = 20;
  const int64_t row_elements = kLatent + kRopeColumns;
  const TensorView pool = tensor(DType::kBFloat16, {kBlocks * kBlockTokens, row_elements});
  struct Shape {
    int64_t heads;
    std::vector<int32_t> lengths;
  };
  const std::vector<Shape> shapes = {{128, {19000, 1, 0}},
                                     {64, {700, 385, 449, 64, 9000}},
                                     {16, std::vector<int32_t>(200, 300)},
                                     {100, {384, 385, 448, 449, 320}},
                                     {5, {5000}}};
  struct Call {
    kernels::MlaDecodeParams params;
    std::vector<float> expected, expected_lse;
  };
  const auto values_of = [&](const TensorView& view) {  // two bfloat16 in the bits of a float32
    TensorView words = view;
    words.dtype = DType::kFloat32;
    words.shape[2] /= 2;
    words.stride[0] /= 2;
    words.stride[1] /= 2;
    return floats(words);
  };
  std::vector<Call> calls(kCalls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& [heads, length_list] = shapes[i % shapes.size()];
    const auto batch = static_cast<int64_t>(length_list.size());
    Array table({batch, kBlocks});
    for (double& block : table.values) {
      block = static_cast<double>(random_.index(kBlocks));
    }
    const TensorView q = tensor(DType::kBFloat16, {batch, heads, row_elements});
    calls[i].params = {.q_latent = q.slice(2, 0, kLatent),
                       .q_rope = q.slice(2, kLatent, kRopeColumns),
                       .cache = {.base = pool.data,
                                 .block_stride_bytes = kBlockTokens * row_elements * 2,
                                 .num_blocks = kBlocks,
                                 .latent_width = kLatent,
                                 .rope_width = kRopeColumns,
                                 .dtype = DType::kBFloat16},
                       .block_tables = upload(HostTensor(DType::kInt32, table)),
                       .lengths = upload(HostTensor(length_list)),
                       .scale = 0.5F,
                       .out = tensor(DType::kBFloat16, {batch, heads, kLatent}),
                       .log_sum_exp = tensor(DType::kFloat32, {batch, heads})};
    ops_.mla_decode(calls[i].params, {});
    calls[i].expected = values_of(calls[i].params.out);
    calls[i].expected_lse = floats(calls[i].params.log_sum_exp);
  }

  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  for (const Call& call : calls) {
    ops_.mla_decode(call.params, {stream});
  }
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  for (int64_t i = 0; i < kReplays; ++i) {
    for (const Call& call : calls) {  // poison: a replay that writes nothing must not pass
      const TensorView& out = call.params.out;
      const TensorView& lse = call.params.log_sum_exp;
      ASSERT_EQ(cudaMemset(out.data, 0xff, static_cast<size_t>(out.num_elements()) * 2),
                cudaSuccess);
      ASSERT_EQ(cudaMemset(lse.data, 0xff, static_cast<size_t>(lse.num_elements()) * 4),
                cudaSuccess);
    }
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    for (size_t at = 0; at < calls.size(); ++at) {
      SCOPED_TRACE("replay " + std::to_string(i) + ", call " + std::to_string(at));
      ASSERT_EQ(values_of(calls[at].params.out), calls[at].expected);
      ASSERT_EQ(floats(calls[at].params.log_sum_exp), calls[at].expected_lse);
    }
  }
  EXPECT_EQ(cudaGraphExecDestroy(replay), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace tessera::testing
