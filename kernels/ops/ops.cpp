#include "kernels/ops/ops.h"

#include <algorithm>
#include <vector>

#include "kernels/core/shape_check.h"
#include "kernels/ops/probe_signs.h"

namespace tessera::kernels {
namespace {

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
constexpr DType kI32 = DType::kInt32;
constexpr DType kI64 = DType::kInt64;

bool is_cache_dtype(DType dtype) {
  return dtype == kF32 || dtype == kBf16 || dtype == DType::kFloat8E4M3;
}

constexpr int64_t kFloat8Alignment = 16;  // see latent_row.h

void check_cache(const ShapeCheck& check, const LatentCacheView& cache) {
  check.is_true(cache.base != nullptr && cache.latent_width > 0 && cache.rope_width >= 0,
                "the cache view is empty");
  check.is_true(is_cache_dtype(cache.dtype), "cache dtype");
  check.is_true(cache.block_stride_bytes >= kBlockTokens * cache.layout().row_bytes,
                "the cache's blocks overlap");
  check.is_true(!cache.is_float8() || cache.block_stride_bytes % kFloat8Alignment == 0,
                "float8 rows have to begin at multiples of 16 bytes");
}

/// `view` has the type in which the cache's rows are attended to.
void check_activation(const ShapeCheck& check,
                      const char* name,
                      const ConstTensorView& view,
                      const LatentCacheView& cache,
                      std::initializer_list<Dim*> dims) {
  if (cache.is_float8()) {
    check.tensor(name, view, dims, {kF32, kBf16});
  } else {
    check.tensor(name, view, dims, {cache.dtype});
  }
}

/// The rows of `cache` hold `columns` of a latent of `latent_width`.
void check_columns(const ShapeCheck& check,
                   const LatentColumns& columns,
                   const LatentCacheView& cache,
                   int64_t latent_width) {
  check.is_true(columns.fits(latent_width), "columns outside of the latent");
  check.is_true(columns.width() == cache.latent_width,
                "the cache's rows are not as wide as the columns");
}

void check_window(const ShapeCheck& check, const MlaDecodeParams& params) {
  const DecodeWindow& window = *params.window;
  const LatentCacheView& cache = window.cache;
  Dim rows{"B", params.q_latent.dim(0)}, heads{"H", params.q_latent.dim(1)};
  Dim latent{"R", cache.latent_width};
  check_cache(check, cache);
  check.is_true(
      cache.dtype == params.q_latent.dtype && cache.rope_width == params.cache.rope_width,
      "the window's rows are of another kind than the queries, or have another rope part");
  check.is_true(cache.block_stride_bytes == kBlockTokens * cache.layout().row_bytes,
                "the window's rows do not lie back to back");
  check_columns(check, window.columns, params.cache, cache.latent_width);
  const WindowRing& ring = window.ring;
  check.is_true(ring.window.num_first >= 0 && ring.window.num_last >= 0 &&
                    ring.ring_rows >= ring.window.num_last &&
                    ring.rows_per_sequence() <= cache.num_blocks * kBlockTokens,
                "the window does not fit its ring, or the ring its cache");
  check.tensor("window.q_latent", window.q_latent, {&rows, &heads, &latent}, {cache.dtype});
  check.tensor("window.first_slots", window.first_slots, {&rows}, {kI64});
}

}  // namespace

std::unique_ptr<LinearWeight> Ops::make_linear_weight(const LinearShape& shape) {
  const ShapeCheck check("make_linear_weight");
  check.is_true(shape.num_groups > 0 && shape.out_features > 0 && shape.in_features > 0,
                "sizes must be positive");
  check.is_true(shape.dtype == kF32 || shape.dtype == kBf16, "dtype is float32 or bfloat16");
  if (shape.scales) {
    const BlockScales& scales = *shape.scales;
    check.is_true(multiplies_float8(), "this backend holds no weights in float8");
    check.is_true(shape.dtype == kBf16, "weights in float8 are multiplied in bfloat16");
    check.is_true((scales.rows == 1 || scales.rows == kScaleBlock) && scales.first_column >= 0 &&
                      scales.first_column < kScaleBlock,
                  "blocks of scales");
  }
  return do_make_linear_weight(shape);
}

void Ops::load_linear_weight(LinearWeight& weight, int64_t group, const ConstTensorView& matrix) {
  const LinearShape& shape = weight.shape();
  const ShapeCheck check("load_linear_weight");
  check.is_true(group >= 0 && group < shape.num_groups, "group out of range");
  check.is_true(
      matrix.rank == 2 && matrix.dim(0) == shape.out_features && matrix.dim(1) == shape.in_features,
      "the matrix has another shape than the weight");
  check.is_true(matrix.dtype == kF32 || matrix.dtype == kBf16 || matrix.dtype == DType::kFloat16,
                "the matrix is float32, bfloat16 or float16");
  check.is_true(!shape.scales, "the weight is held in float8");
  do_load_linear_weight(weight, group, matrix);
}

void Ops::load_float8_weight(LinearWeight& weight, int64_t group, const Float8Matrix& matrix) {
  const LinearShape& shape = weight.shape();
  const ShapeCheck check("load_float8_weight");
  check.is_true(group >= 0 && group < shape.num_groups, "group out of range");
  check.is_true(shape.scales.has_value(), "the weight is not held in float8");
  Dim out{"N", shape.out_features}, in{"K", shape.in_features};
  Dim rows{"scale_rows", shape.scale_rows()}, columns{"scale_columns", shape.scale_columns()};
  check.tensor("values", matrix.values, {&out, &in}, {DType::kFloat8E4M3});
  check.tensor("scales", matrix.scales, {&rows, &columns}, {kF32});
  check.contiguous("values", matrix.values);
  check.contiguous("scales", matrix.scales);
  do_load_float8_weight(weight, group, matrix);
}

void Ops::do_load_float8_weight(LinearWeight& /*weight*/,
                                int64_t /*group*/,
                                const Float8Matrix& /*matrix*/) {
  TESSERA_CHECK(false, "this backend holds no weights in float8");
}

void Ops::fill_linear_weight(LinearWeight& weight,
                             int64_t group,
                             std::span<const RandomRows> parts) {
  const ShapeCheck check("fill_linear_weight");
  check.is_true(group >= 0 && group < weight.shape().num_groups, "group out of range");
  int64_t rows = 0;
  for (const RandomRows& part : parts) {
    rows += part.rows;
  }
  check.is_true(rows == weight.shape().out_features,
                "the parts have another number of rows than the weight");
  if (weight.shape().scales) {
    for (const RandomRows& part : parts) {
      check.is_true(part.half_width == parts.front().half_width, "the parts are of one width");
    }
  }
  do_fill_linear_weight(weight, group, parts);
}

void Ops::do_fill_linear_weight(LinearWeight& weight,
                                int64_t group,
                                std::span<const RandomRows> parts) {
  const LinearShape& shape = weight.shape();
  if (shape.scales) {
    fill_float8(weight, group, parts);
    return;
  }
  std::vector<BFloat16> values;
  values.reserve(static_cast<size_t>(shape.out_features * shape.in_features));
  for (const RandomRows& part : parts) {
    for (int64_t i = 0; i < part.rows * shape.in_features; ++i) {
      const float value = part.half_width * random_unit(part.counter + static_cast<uint64_t>(i));
      values.push_back(BFloat16::from_float(value));
    }
  }
  do_load_linear_weight(
      weight,
      group,
      TensorView{values.data(), DType::kBFloat16, {shape.out_features, shape.in_features}});
}

void Ops::fill_float8(LinearWeight& weight, int64_t group, std::span<const RandomRows> parts) {
  const LinearShape& shape = weight.shape();
  std::vector<uint8_t> values;
  values.reserve(static_cast<size_t>(shape.out_features * shape.in_features));
  for (const RandomRows& part : parts) {
    for (int64_t i = 0; i < part.rows * shape.in_features; ++i) {
      values.push_back(random_float8(part.counter + static_cast<uint64_t>(i)));
    }
  }
  std::vector<float> scales(static_cast<size_t>(shape.scale_rows() * shape.scale_columns()),
                            random_float8_scale(parts.front().half_width));
  do_load_float8_weight(
      weight,
      group,
      {TensorView{values.data(), DType::kFloat8E4M3, {shape.out_features, shape.in_features}},
       TensorView{scales.data(), kF32, {shape.scale_rows(), shape.scale_columns()}}});
}

void Ops::embedding(const EmbeddingParams& params, StreamView stream) {
  Dim tokens{"T"}, vocab{"V"}, width{"D"};
  const ShapeCheck check("embedding");
  check.tensor("ids", params.ids, {&tokens}, {kI32});
  check.tensor("table", params.table, {&vocab, &width}, {kF32, kBf16});
  check.tensor("out", params.out, {&tokens, &width}, {kF32});
  do_embedding(params, stream);
}

void Ops::rms_norm(const RmsNormParams& params, StreamView stream) {
  Dim tokens{"T"}, width{"D"};
  const ShapeCheck check("rms_norm");
  check.tensor("x", params.x, {&tokens, &width}, {kF32});
  check.tensor("weight", params.weight, {&width}, {kF32});
  check.tensor("out", params.out, {&tokens, &width}, {kF32, kBf16});
  if (params.add.data != nullptr) {
    check.tensor("add", params.add, {&tokens, &width}, {kF32});
  }
  do_rms_norm(params, stream);
}

void Ops::rope(const RopeParams& params, StreamView stream) {
  Dim tokens{"T"}, heads{"H"}, width{"dr"}, positions{"max_positions"}, half{"dr/2"};
  const ShapeCheck check("rope");
  check.tensor("x", params.x, {&tokens, &heads, &width}, {kF32, kBf16});
  check.tensor("positions", params.positions, {&tokens}, {kI32});
  check.tensor("cos", params.cos, {&positions, &half}, {kF32});
  check.tensor("sin", params.sin, {&positions, &half}, {kF32});
  check.is_true(width.size == 2 * half.size, "dr is not twice the width of cos");
  do_rope(params, stream);
}

void Ops::silu_mul(const SiluMulParams& params, StreamView stream) {
  Dim tokens{"T"}, both{"2I"}, width{"I"};
  const ShapeCheck check("silu_mul");
  check.tensor("x", params.x, {&tokens, &both}, {kF32});
  check.tensor("out", params.out, {&tokens, &width}, {kF32, kBf16});
  check.is_true(both.size == 2 * width.size, "x is not twice as wide as out");
  do_silu_mul(params, stream);
}

void Ops::cast(const CastParams& params, StreamView stream) {
  Dim tokens{"T"}, width{"D"};
  const ShapeCheck check("cast");
  check.tensor("x", params.x, {&tokens, &width}, {kF32, kBf16});
  check.tensor("out", params.out, {&tokens, &width}, {kF32, kBf16});
  do_cast(params, stream);
}

void Ops::gather_rows(const GatherRowsParams& params, StreamView stream) {
  Dim tokens{"T"}, width{"D"}, rows{"n"};
  const ShapeCheck check("gather_rows");
  check.tensor("x", params.x, {&tokens, &width}, {kF32});
  check.tensor("rows", params.rows, {&rows}, {kI32});
  check.tensor("out", params.out, {&rows, &width}, {kF32});
  do_gather_rows(params, stream);
}

void Ops::linear(const LinearParams& params, StreamView stream) {
  const LinearShape& shape = params.weight->shape();
  Dim tokens{"T"}, in{"K", shape.in_features}, out{"N", shape.out_features};
  const ShapeCheck check("linear");
  check.is_true(shape.num_groups == 1, "the weight has several groups");
  check.tensor("x", params.x, {&tokens, &in}, {shape.dtype});
  check.tensor("out", params.out, {&tokens, &out}, {kF32, shape.dtype});
  if (params.bias.data != nullptr) {
    check.tensor("bias", params.bias, {&out}, {kF32});
  }
  if (tokens.size > 0) {
    do_linear(params, stream);
  }
}

void Ops::batched_linear(const BatchedLinearParams& params, StreamView stream) {
  const LinearShape& shape = params.weight->shape();
  Dim tokens{"T"}, groups{"G", shape.num_groups};
  Dim in{"K", shape.in_features}, out{"N", shape.out_features};
  const ShapeCheck check("batched_linear");
  check.is_true(!shape.scales, "the weight is held in float8");
  check.tensor("x", params.x, {&tokens, &groups, &in}, {shape.dtype});
  check.tensor("out", params.out, {&tokens, &groups, &out}, {kF32, shape.dtype});
  if (tokens.size > 0) {
    do_batched_linear(params, stream);
  }
}

void Ops::grouped_linear(const GroupedLinearParams& params, StreamView stream) {
  const LinearShape& shape = params.weight->shape();
  Dim rows{"M"}, bounds{"G + 1", shape.num_groups + 1};
  Dim in{"K", shape.in_features}, out{"N", shape.out_features};
  const ShapeCheck check("grouped_linear");
  check.tensor("x", params.x, {&rows, &in}, {shape.dtype});
  check.tensor("offsets", params.offsets, {&bounds}, {kI32});
  check.tensor("out", params.out, {&rows, &out}, {kF32, shape.dtype});
  if (rows.size > 0) {
    do_grouped_linear(params, stream);
  }
}

void Ops::latent_write(const LatentWriteParams& params, StreamView stream) {
  Dim tokens{"T"}, latent{"R"}, rope{"dr", params.cache.rope_width};
  const ShapeCheck check("latent_write");
  check_cache(check, params.cache);
  check.tensor("latent", params.latent, {&tokens, &latent}, {kF32});
  check_columns(check, params.columns, params.cache, latent.size);
  check.tensor("rope", params.rope, {&tokens, &rope}, {kF32});
  check.tensor("slots", params.slots, {&tokens}, {kI64});
  do_latent_write(params, stream);
}

void Ops::latent_gather(const LatentGatherParams& params, StreamView stream) {
  Dim rows{"n"}, blocks{"num_blocks"}, latent{"R"}, rope{"dr", params.cache.rope_width};
  const ShapeCheck check("latent_gather");
  check_cache(check, params.cache);
  check.tensor("block_table", params.block_table, {&blocks}, {kI32});
  check_activation(check, "latent", params.latent, params.cache, {&rows, &latent});
  check_columns(check, params.columns, params.cache, latent.size);
  check.tensor("rope", params.rope, {&rows, &rope}, {params.latent.dtype});
  check.is_true(params.begin >= 0 && params.begin + rows.size <= blocks.size * kBlockTokens,
                "positions outside of the block table");
  do_latent_gather(params, stream);
}

void Ops::latent_probe(const LatentProbeParams& params, StreamView stream) {
  Dim tokens{"T"}, latent{"R"}, rope{"dr"};
  const ShapeCheck check("latent_probe");
  check.tensor("latent", params.latent, {&tokens, &latent}, {kF32});
  check.tensor("rope", params.rope, {&tokens, &rope}, {kF32});
  check.tensor("positions", params.positions, {&tokens}, {kI32});
  check.tensor("slots", params.slots, {&tokens}, {kI64});
  check.is_true(params.columns.fits(latent.size), "columns outside of the latent");
  check.is_true(is_cache_dtype(params.dtype), "cache dtype");
  check.is_true(params.sums != nullptr && params.sum_stride >= 1, "nowhere to put the sums");
  do_latent_probe(params, stream);
}

void Ops::cache_probe(const CacheProbeParams& params, StreamView stream) {
  Dim blocks{"n"};
  const ShapeCheck check("cache_probe");
  check_cache(check, params.cache);
  check.tensor("blocks", params.blocks, {&blocks}, {kI32});
  check_columns(check, params.columns, params.cache, kProbeRopeWord * kProbeWordColumns);
  check.is_true(params.first_index >= 0 && params.index_step >= 1, "blocks count from 0");
  check.is_true(params.sums != nullptr || blocks.size == 0, "nowhere to put the sums");
  do_cache_probe(params, stream);
}

void Ops::mla_prefill(const MlaPrefillParams& params, StreamView stream) {
  Dim queries{"T"}, heads{"H"}, qk{"dn + dr"}, keys{"n"}, kv{"dn + dv"}, rope{"dr"}, value{"dv"};
  const ShapeCheck check("mla_prefill");
  check.tensor("q", params.q, {&queries, &heads, &qk}, {kF32, kBf16});
  check.tensor("kv", params.kv, {&keys, &heads, &kv}, {params.q.dtype});
  check.tensor("k_rope", params.k_rope, {&keys, &rope}, {params.q.dtype});
  check.tensor("accumulator", params.accumulator, {&queries, &heads, &value}, {kF32});
  check.tensor("max_logit", params.max_logit, {&queries, &heads}, {kF32});
  check.tensor("sum", params.sum, {&queries, &heads}, {kF32});
  check.tensor("out", params.out, {&queries, &heads, &value}, {params.q.dtype});
  check.is_true(kv.size - value.size == qk.size - rope.size, "q and kv disagree about dn");
  check.is_true(!params.is_first_tile || params.key_begin == 0,
                "the first tile holds the first keys, so that every query sees one");
  do_mla_prefill(params, stream);
}

void Ops::mla_decode(const MlaDecodeParams& params, StreamView stream) {
  Dim rows{"B"}, heads{"H"}, blocks{"max_blocks"};
  Dim latent{"w", params.cache.latent_width}, rope{"dr", params.cache.rope_width};
  const ShapeCheck check("mla_decode");
  check_cache(check, params.cache);
  check_activation(check, "q_latent", params.q_latent, params.cache, {&rows, &heads, &latent});
  check.tensor("q_rope", params.q_rope, {&rows, &heads, &rope}, {params.q_latent.dtype});
  check.tensor("block_tables", params.block_tables, {&rows, &blocks}, {kI32});
  check.tensor("lengths", params.lengths, {&rows}, {kI32});
  check.tensor("out", params.out, {&rows, &heads, &latent}, {params.q_latent.dtype});
  check.tensor("log_sum_exp", params.log_sum_exp, {&rows, &heads}, {kF32});
  check.is_true(params.row_tokens >= 1 && rows.size % params.row_tokens == 0,
                "rows are no whole number of sequences");
  if (params.window) {
    check_window(check, params);
  }
  if (rows.size > 0) {
    do_mla_decode(params, stream);
  }
}

void Ops::merge_scale(const MergeScaleParams& params, StreamView stream) {
  Dim parts{"G"}, rows{"B"}, heads{"H"}, width{"dv"};
  const ShapeCheck check("merge_scale");
  check.tensor("log_sum_exp", params.log_sum_exp, {&parts, &rows, &heads}, {kF32});
  check.tensor("values", params.values, {&rows, &heads, &width}, {kF32});
  check.contiguous("log_sum_exp", params.log_sum_exp);
  check.is_true(params.part >= 0 && params.part < parts.size, "no such part");
  if (rows.size > 0) {
    do_merge_scale(params, stream);
  }
}

void Ops::moe_gate(const MoeGateParams& params, StreamView stream) {
  Dim tokens{"T"}, experts{"E"}, top_k{"k"};
  const ShapeCheck check("moe_gate");
  check.tensor("logits", params.logits, {&tokens, &experts}, {kF32});
  check.tensor("expert_ids", params.expert_ids, {&tokens, &top_k}, {kI32});
  check.tensor("expert_weights", params.expert_weights, {&tokens, &top_k}, {kF32});
  if (params.bias.data != nullptr) {
    check.tensor("bias", params.bias, {&experts}, {kF32});
  }
  check.is_true(params.num_groups >= 1 && experts.size % params.num_groups == 0,
                "the experts do not divide into the groups");
  const int64_t num_kept_groups = params.topk == MoeTopk::kGreedy
                                      ? params.num_groups
                                      : std::min(params.num_kept_groups, params.num_groups);
  check.is_true(top_k.size <= experts.size / params.num_groups * num_kept_groups,
                "top-k is larger than the number of experts to choose from");
  do_moe_gate(params, stream);
}

void Ops::moe_permute(const MoePermuteParams& params, StreamView stream) {
  Dim tokens{"T"}, width{"D"}, top_k{"k"}, pairs{"T * k"}, bounds{"E + 1"};
  const ShapeCheck check("moe_permute");
  check.tensor("x", params.x, {&tokens, &width}, {kF32, kBf16});
  check.tensor("expert_ids", params.expert_ids, {&tokens, &top_k}, {kI32});
  check.tensor("permuted", params.permuted, {&pairs, &width}, {params.x.dtype});
  check.tensor("offsets", params.offsets, {&bounds}, {kI32});
  check.tensor("row_of_pair", params.row_of_pair, {&tokens, &top_k}, {kI32});
  check.contiguous("permuted", params.permuted);
  check.contiguous("expert_ids", params.expert_ids);
  check.contiguous("row_of_pair", params.row_of_pair);
  check.is_true(pairs.size == tokens.size * top_k.size, "permuted has not T * k rows");
  do_moe_permute(params, stream);
}

void Ops::moe_combine(const MoeCombineParams& params, StreamView stream) {
  Dim tokens{"T"}, width{"D"}, top_k{"k"}, pairs{"T * k"};
  const ShapeCheck check("moe_combine");
  check.tensor("expert_out", params.expert_out, {&pairs, &width}, {kF32});
  check.tensor("row_of_pair", params.row_of_pair, {&tokens, &top_k}, {kI32});
  check.tensor("expert_weights", params.expert_weights, {&tokens, &top_k}, {kF32});
  check.tensor("out", params.out, {&tokens, &width}, {kF32});
  check.contiguous("row_of_pair", params.row_of_pair);
  check.contiguous("expert_weights", params.expert_weights);
  check.is_true(pairs.size == tokens.size * top_k.size, "expert_out has not T * k rows");
  if (params.offsets.data != nullptr) {
    Dim bounds{"G + 1"};
    check.tensor("offsets", params.offsets, {&bounds}, {kI32});
    check.is_true(bounds.size >= 2, "offsets are of one expert or more");
  }
  do_moe_combine(params, stream);
}

void Ops::sample(const SampleParams& params, StreamView stream) {
  Dim rows{"n"}, vocab{"V"}, samples{"S"}, bytes{"S * sizeof(SampleRow)"};
  Dim history{"h"}, bias{"b"}, top{"kMaxTopLogprobs", kMaxTopLogprobs};
  const ShapeCheck check("sample");
  check.tensor("logits", params.logits, {&rows, &vocab}, {kF32});
  check.tensor("rows", params.rows, {&bytes}, {DType::kUint8});
  check.tensor("history_ids", params.history_ids, {&history}, {kI32});
  check.tensor("history_counts", params.history_counts, {&history}, {kI32});
  check.tensor("bias_ids", params.bias_ids, {&bias}, {kI32});
  check.tensor("bias_values", params.bias_values, {&bias}, {kF32});
  check.tensor("token_ids", params.token_ids, {&samples}, {kI32});
  check.tensor("logprobs", params.logprobs, {&samples}, {kF32});
  check.tensor("top_ids", params.top_ids, {&samples, &top}, {kI32});
  check.tensor("top_logprobs", params.top_logprobs, {&samples, &top}, {kF32});
  check.is_true(bytes.size == samples.size * static_cast<int64_t>(sizeof(SampleRow)),
                "rows do not match the outputs");
  do_sample(params, stream);
}

}  // namespace tessera::kernels
